"""
Native half of `cmgmux`: use the classes of the `cmgmux` package instead.
"""

from _typeshed import SupportsGetItem
from os import PathLike
from typing import SupportsFloat, SupportsIndex, final

__all__ = ["Authority", "ConnectionPoint", "Gateway", "LogRecord", "Port", "SampleRole", "ServiceEvent", "Swarm", "check_config", "config_defaults", "set_log_level", "write_private"]

@final
class Authority:
    """
    A development certificate authority. What it issues expires with it.

    Certificates and keys are PEM texts, given as pairs of certificate and private key.
    """
    def __new__(cls, common_name: str, /, *, days: SupportsIndex) -> Authority:
        """
        Make an authority that is valid for `days`, 1 to 36,500.
        """
    def issue_client(self, common_name: str, /) -> tuple[str, str]:
        """
        Issue to a client called `common_name`.
        """
    def issue_connection_point(self, site: str, name: str, /) -> tuple[str, str]:
        """
        Issue to the connection point `name` of `site`.
        """
    def issue_server(self, names: SupportsGetItem[int, str], /) -> tuple[str, str]:
        """
        Issue to a server that is reached by `names`: DNS names and IP addresses, at least one.
        """
    def pem(self, /) -> tuple[str, str]:
        """
        The authority's own certificate and key.
        """

@final
class ConnectionPoint:
    """
    A connection point.
    """
    def __new__(cls, settings: str, /) -> ConnectionPoint: ...
    @property
    def id(self, /) -> int:
        """
        The number that the events of this service carry.
        """
    def request_stop(self, grace_s: SupportsFloat | SupportsIndex, /) -> None:
        """
        Begin to stop: what is under way may finish within `grace_s`. `port` will say `ended`.
        """
    def start(self, port: Port, /) -> None:
        """
        Start on a thread of its own, once; `port` will say `started` or `failed`.
        """
    def status(self, /) -> str:
        """
        Counters and state as a JSON object; the last ones after the end.
        """

@final
class Gateway:
    """
    A gateway instance.
    """
    def __new__(cls, settings: str, /) -> Gateway: ...
    def channel_address(self, /) -> str:
        """
        Where connection points connect, as `address:port`.
        """
    def client_address(self, /) -> str:
        """
        Where clients connect, as `address:port`.
        """
    @property
    def id(self, /) -> int:
        """
        The number that the events of this service carry.
        """
    def request_stop(self, grace_s: SupportsFloat | SupportsIndex, /) -> None:
        """
        Begin to stop: what is under way may finish within `grace_s`. `port` will say `ended`.
        """
    def start(self, port: Port, /) -> None:
        """
        Start on a thread of its own, once; `port` will say `started` or `failed`.
        """
    def status(self, /) -> str:
        """
        Counters and state as a JSON object; the last ones after the end.
        """

@final
class LogRecord:
    """
    One log record of the native side.
    """
    @property
    def fields(self, /) -> dict[str, bool | int | float | str]:
        """
        The values, those of the enclosing spans included.
        """
    @property
    def level(self, /) -> int:
        """
        The level in the numbers of Python's `logging`; 5 is trace.
        """
    @property
    def message(self, /) -> str:
        """
        The constant part of the record.
        """
    @property
    def target(self, /) -> str:
        """
        The Rust module that speaks, such as `cmgmux_net::driver`.
        """
    @property
    def time(self, /) -> float:
        """
        Seconds since the Unix epoch.
        """

@final
class Port:
    """
    What services have to say to one event loop.

    Watch `fileno()` for reading and call `drain` when it is readable. The oldest open port of the
    process also delivers the native log.
    """
    def __new__(cls, /) -> Port: ...
    def close(self, /) -> None:
        """
        Deliver nothing more. What is not drained yet is lost, except the log. Closing twice is fine.
        """
    def drain(self, max: SupportsIndex = 256, /) -> list[ServiceEvent | LogRecord]:
        """
        Take up to `max` items: events of services first, then log records.

        Never waits. The descriptor stays readable while more is left.
        """
    def fileno(self, /) -> int:
        """
        The descriptor that is readable while there may be something to drain.
        """
    @property
    def wakeups(self, /) -> int:
        """
        How often the descriptor became readable: once for each burst of items.
        """

@final
class SampleRole:
    """
    The sample role of demo and tests.
    """
    def __new__(cls, settings: str, /) -> SampleRole: ...
    def address(self, /) -> str:
        """
        Where it listens, as `address:port`.
        """
    @property
    def id(self, /) -> int:
        """
        The number that the events of this service carry.
        """
    def request_stop(self, grace_s: SupportsFloat | SupportsIndex, /) -> None:
        """
        Begin to stop: what is under way may finish within `grace_s`. `port` will say `ended`.
        """
    def start(self, port: Port, /) -> None:
        """
        Start on a thread of its own, once; `port` will say `started` or `failed`.
        """
    def status(self, /) -> str:
        """
        Counters and state as a JSON object; the last ones after the end.
        """

@final
class ServiceEvent:
    """
    A turn in the life of a service.
    """
    @property
    def key(self, /) -> str | None:
        """
        When a setting is at fault: its key in the configuration file.
        """
    @property
    def kind(self, /) -> str:
        """
        `started`, `failed` (to start) or `ended`.
        """
    @property
    def message(self, /) -> str | None:
        """
        What went wrong; `None` if nothing did.
        """
    @property
    def service(self, /) -> int:
        """
        The `id` of the service.
        """

@final
class Swarm:
    """
    Many clients that each hold a request open.
    """
    def __new__(cls, settings: str, /) -> Swarm: ...
    @property
    def id(self, /) -> int:
        """
        The number that the events of this service carry.
        """
    def report(self, /) -> str:
        """
        What the clients saw, as a JSON object.
        """
    def request_stop(self, grace_s: SupportsFloat | SupportsIndex, /) -> None:
        """
        Begin to stop: what is under way may finish within `grace_s`. `port` will say `ended`.
        """
    def start(self, port: Port, /) -> None:
        """
        Start on a thread of its own, once; `port` will say `started` or `failed`.
        """
    def status(self, /) -> str:
        """
        Counters and state as a JSON object; the last ones after the end.
        """

def check_config(kind: str, settings: str, /) -> None:
    """
    Check the JSON settings of a service as its start would, files included, without starting it.

    `kind` is `gateway` or `connection-point`.
    """

def config_defaults(kind: str, /) -> str:
    """
    The optional settings of a kind of service with their defaults, as a JSON object.

    `kind` is `gateway`, `connection-point`, `mapping`, `sample-role` or `load`.
    """

def set_log_level(level: SupportsIndex, /) -> None:
    """
    Keep native log records below `level` from being made.

    `level` is a number of Python's `logging`; 5 lets trace pass, which is a record for each frame.
    """

def write_private(path: str | PathLike[str], pem: str, /) -> None:
    """
    Write a private key, readable by its owner alone from the first moment on.
    """
