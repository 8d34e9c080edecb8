"""What can go wrong, as one tree of exceptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path


class CmgmuxError(Exception):
    """The root of the tree."""

    retryable: ClassVar[bool] = False
    """Whether the same attempt may succeed later without anybody changing anything."""


class ConfigError(CmgmuxError):
    """A setting that cannot be used. Its text is one line naming file, line and key.

    Attributes:
        reason: What is wrong and what would be right.
        key: The key path, such as ``mappings[2].internal``; empty if no key is at fault.
        path: The file, if the setting came from one.
        line: The line in that file, counted from 1, if the key is written there.
    """

    def __init__(
        self,
        reason: str,
        *,
        key: str = "",
        path: Path | None = None,
        line: int | None = None,
    ) -> None:
        """Say what is wrong, and where as far as that is known."""
        self.reason = " ".join(reason.split())
        self.key = key
        self.path = path
        self.line = line
        place = "" if path is None else str(path) if line is None else f"{path}:{line}"
        super().__init__(": ".join(part for part in (place, key, self.reason) if part))


class ServiceError(CmgmuxError):
    """A service that did not start for no fault of a setting, or ended without being stopped."""

    retryable = True


class StatusError(CmgmuxError):
    """An admin socket that does not answer: the process is not there, or not ready."""

    retryable = True


class PkiError(CmgmuxError):
    """Certificates that could not be made."""


class UsageError(CmgmuxError):
    """A call that makes no sense at this moment: the calling code is at fault."""


class ForkedError(UsageError):
    """An object of the parent process was used in a child made by ``fork``."""


class EventLoopError(UsageError):
    """No event loop of a supported kind is running."""
