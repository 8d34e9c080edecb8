"""The settings of a gateway instance and of a connection point, read from TOML.

A relative path in a file is relative to that file's folder. Unknown keys are errors. Defaults
live in the native side; the ones here repeat them. The native side also has the last word on what
values mean, such as addresses and URLs: `FileModel.check` asks it.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
)
from pydantic.functional_validators import AfterValidator

from cmgmux import _native
from cmgmux._toml_lines import Path as KeyPath
from cmgmux._toml_lines import key_lines, line_of
from cmgmux.exceptions import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB: Final = 1 << 20

DEFAULT_METHODS: Final = ("GET", "HEAD", "POST", "PROPFIND", "CCM_POST", "BITS_POST", "OPTIONS")
"""What clients of the original send."""

_MAX_FILE_BYTES: Final = 16 * MIB


def _inside_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    return path if folder is None else Path(folder) / path


FilePath = Annotated[Path, AfterValidator(_inside_folder)]
"""A path; from a file, relative to its folder."""

Seconds = Annotated[float, Field(gt=0)]
"""A time in seconds."""

Shards = Annotated[int, Field(ge=1, le=16)]


class Source(NamedTuple):
    """The file that settings came from."""

    path: Path
    lines: dict[KeyPath, int]


class Model(BaseModel):
    """A table of settings: immutable, and strict about its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class FileModel(Model):
    """The settings of one file."""

    kind: ClassVar[str]
    """Whose settings: ``gateway`` or ``connection-point``."""
    _source: Source | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read and check the settings in the TOML file at `path`.

        Raises:
            ConfigError: The file cannot be read, or a setting in it cannot be used. Of several
                faults, the first in the file.
        """
        path = Path(path)
        text = _read(path)
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _syntax_error(path, error) from None
        source = Source(path, key_lines(text))
        try:
            config = cls.model_validate(document, context={"folder": path.parent})
        except ValidationError as error:
            raise _first_error(source, error) from None
        config._source = source
        return config

    def check(self) -> None:
        """Check everything that a start would, files included, short of opening sockets.

        Raises:
            ConfigError: A setting cannot be used, or a file that it names.
        """
        try:
            _native.check_config(self.kind, self.to_native())
        except ConfigError as error:
            raise self.error(error.key, error.reason) from None

    def warnings(self) -> list[str]:
        """Say what can be used and is unwise, each with file, line and key."""
        return [str(self.error(key, reason)) for key, reason in self._unwise()]

    def _unwise(self) -> Iterator[tuple[str, str]]:
        """Give each setting that is unwise, and why."""
        yield from ()

    def error(self, key: str, reason: str) -> ConfigError:
        """Build the error about the setting `key`, naming the file and line it came from."""
        if self._source is None:
            return ConfigError(reason, key=key)
        path, lines = self._source
        return ConfigError(reason, key=key, path=path, line=line_of(lines, parse_key(key)))

    def to_native(self) -> str:
        """Give the settings as the JSON that native services read; unset ones are left out."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True))


class Trusted(Model):
    """A certificate authority of connection points and what it may vouch for."""

    ca: FilePath
    """PEM file with the authority's certificates."""
    sites: tuple[str, ...]
    """The sites that certificates of this authority may speak for."""


class GatewayConfig(FileModel):
    """The settings of one gateway instance."""

    kind: ClassVar[str] = "gateway"

    index: Annotated[int, Field(ge=0, le=15)] = 0
    """Which instance of the gateway this is, 0 to 15."""
    listen: str = "0.0.0.0:443"
    """Where clients connect."""
    channel_listen: str | None = None
    """Where connection points connect. Default: port 10140 plus `index`, on all addresses."""
    certificate: FilePath
    """PEM file with the instance's certificate, followed by the intermediate ones. Clients and
    connection points see it."""
    key: FilePath
    """PEM file with the private key of `certificate`."""
    admin_socket: FilePath | None = None
    """Unix socket that serves counters and state. Default: none. Who may open it may read them."""
    shards: Shards | None = None
    """Threads, each with its own channel to each connection point. Default: one a core, at most
    16. More than cores costs memory and gains nothing."""
    admission_timeout_s: Seconds = 5.0
    """How long a request waits for a connection point before it is refused with 503. Raising it
    bridges longer gaps; each waiting request holds its client connection and head."""
    head_timeout_s: Seconds = 10.0
    """How long a client may take to send the head of a request, and to finish the TLS handshake.
    Raising it lets slow attackers hold connections longer."""
    idle_timeout_s: Seconds = 75.0
    """How long a client connection is kept between requests. Raising it saves handshakes and
    costs the memory of idle connections."""
    stall_timeout_s: Seconds = 60.0
    """How long a client may neither read nor send while it should, before its exchange is reset.
    Raising it lets stalled clients hold buffers longer."""
    max_clients: Annotated[int, Field(ge=1, le=1_000_000)] = 16_000
    """Client connections at a time; more wait in the listen queue. Each costs memory and a file
    descriptor."""
    max_detached_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 512 << 20
    """What channels without a link may keep for when they have one again, all together: what they
    had sent and not seen acknowledged, and queued, when they lost it. Beyond it the one that waits
    for longest ends. It is memory."""
    trusted: tuple[Trusted, ...] = ()
    """Who may connect as a connection point, for which sites. At least one."""


class Instance(Model):
    """One gateway instance that the connection point dials."""

    index: Annotated[int, Field(ge=0, le=15)]
    """The instance's own `index`."""
    address: str
    """Host and channel port."""
    server_name: str | None = None
    """The name that the instance's certificate must carry. Default: the host of `address`."""


class Mapping(Model):
    """One external URL prefix and the internal URL that it stands for."""

    external: str
    """Path prefix on the client side, matched by whole segments, whatever the letter case."""
    internal: str
    """Where matching requests go: ``http://host:port/path`` or ``https://host:port/path``, port and
    path optional. It replaces the prefix."""
    authentication: Literal["certificate", "none"] = "certificate"
    """What clients must present: a certificate of `client_roots`, or nothing."""
    methods: tuple[str, ...] = DEFAULT_METHODS
    """Request methods that pass; others get 405."""
    max_body_bytes: Annotated[int, Field(ge=0)] = 100 * MIB
    """Longest request body; longer ones get 413. Bodies are streamed, so this costs no memory."""
    response_timeout_s: Seconds = 60.0
    """How long the role may stay silent before the client gets 504. Does not apply to `hold`."""
    hold: bool = False
    """The role holds requests open until it has something to say: no response timeout."""
    upstream_ca: FilePath | None = None
    """PEM file with the authorities that may vouch for the role; an ``https://`` URL needs it. Not
    published."""


class PointConfig(FileModel):
    """The settings of one connection point."""

    kind: ClassVar[str] = "connection-point"

    site: str
    """The site that the point belongs to; must equal the one in its certificate."""
    certificate: FilePath
    """PEM file with the point's certificate, which carries the URI ``cmgmux://<site>/<name>``."""
    key: FilePath
    """PEM file with the private key of `certificate`."""
    gateway_ca: FilePath
    """PEM file with the authorities that may vouch for gateway instances."""
    admin_socket: FilePath | None = None
    """Unix socket that serves counters and state. Default: none. Who may open it may read them."""
    shards: Shards | None = None
    """Threads; the channels are spread over them. Default: one a core, at most 16."""
    client_roots: tuple[FilePath, ...] = ()
    """PEM files with the authorities that vouch for clients; published to the gateway."""
    serial: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    """Rises with each change of what is published. Default: the file's modification time, in
    seconds. Points of one site with equal settings should have equal serials."""
    connect_timeout_s: Seconds = 10.0
    """How long dialling an instance may take, handshakes included."""
    reconnect_min_s: Seconds = 0.2
    """Shortest wait before dialling again. Raising it spares a restarting gateway and lengthens
    outages."""
    reconnect_max_s: Seconds = 30.0
    """Longest wait before dialling again, reached by doubling."""
    instances: tuple[Instance, ...]
    """The gateway instances to dial, 1 to 16: all of them, always."""
    mappings: tuple[Mapping, ...]
    """What is published."""

    def to_native(self) -> str:
        """Give the settings as JSON, with the file's modification time for a missing serial."""
        settings = self.model_dump(mode="json", exclude_none=True)
        if self.serial is None and self._source is not None:
            settings["serial"] = int(self._source.path.stat().st_mtime)
        return json.dumps(settings)

    def _unwise(self) -> Iterator[tuple[str, str]]:
        for position, mapping in enumerate(self.mappings):
            if mapping.authentication == "none":
                yield (
                    f"mappings[{position}].authentication",
                    f'"none" lets whoever reaches the gateway use {mapping.external}; '
                    'use "certificate" unless the role itself checks its clients',
                )


def load_any(path: str | Path) -> GatewayConfig | PointConfig:
    """Read a file of either kind: one with `site` or `instances` is a connection point's.

    Raises:
        ConfigError: As for `FileModel.load`.
    """
    path = Path(path)
    try:
        keys = tomllib.loads(_read(path)).keys()
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, error) from None
    kind = PointConfig if keys & {"site", "instances", "mappings", "gateway_ca"} else GatewayConfig
    return kind.load(path)


def parse_key(key: str) -> KeyPath:
    """Split a key path: ``mappings[2].internal`` is ``("mappings", 2, "internal")``."""
    return tuple(
        int(part[1:-1]) if part.startswith("[") else part
        for part in re.findall(r"\[\d+\]|[^.\[\]]+", key)
    )


def format_key(path: KeyPath) -> str:
    """Join a key path: the reverse of `parse_key`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"is longer than {_MAX_FILE_BYTES} bytes", path=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("is not UTF-8 text", path=path, line=line) from None


def _syntax_error(path: Path, error: tomllib.TOMLDecodeError) -> ConfigError:
    text = str(error)
    if match := re.search(r" \(at line (\d+), column (\d+)\)$", text):
        reason, line = text[: match.start()], int(match[1])
        return ConfigError(f"not valid TOML: {reason} in column {match[2]}", path=path, line=line)
    return ConfigError(f"not valid TOML: {text}", path=path)


def _first_error(source: Source, error: ValidationError) -> ConfigError:
    """Turn the fault that comes first in the file into an error; missing keys come last."""
    found = []
    for fault in error.errors(include_url=False, include_input=False):
        location = fault["loc"]
        missing = fault["type"] == "missing"
        # A missing key belongs to its table; one of the whole file has no line.
        line = line_of(source.lines, location[:-1] if missing else location)
        found.append((missing, line or 0, location, _reason(fault["type"], fault["msg"])))
    _, line, location, reason = min(found, key=lambda fault: fault[:2])
    return ConfigError(reason, key=format_key(location), path=source.path, line=line or None)


def _reason(kind: str, message: str) -> str:
    match kind:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is no setting: remove it or correct its name"
        case "value_error":
            return message.removeprefix("Value error, ")
        case _:
            return message[0].lower() + message[1:]
