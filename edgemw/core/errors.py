"""Every error that edgemw raises on purpose.

EdgeError                 exit code 1
|- ConfigError           3   a file or flag says something wrong: file, line, key, nearest name
|- DataError             3   data does not fit the task: shape, dtype, labels, not finite
|- BundleError           3   a task bundle is damaged, or of another format version
|- ExportError           3   a module cannot be exported: names the operator and the module
|- LinkError             4   the broker: what happened, where, what to try
|- WireError             -   a peer sent malformed bytes: counted and dropped, never fatal
|- CodecError            -   an encoding was misused here (our bug, not the peer's)
|- StorageError          1   a state directory cannot be used
"""

from __future__ import annotations

from typing import ClassVar


class EdgeError(Exception):
    """Root of the tree; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(EdgeError):
    """A configuration value was refused."""

    exit_code = 3

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        line: int | None = None,
        key: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.reason, self.file, self.line, self.key, self.suggestion = reason, file, line, key, suggestion
        where = ":".join(str(part) for part in (file, line) if part is not None)
        text = f"{where}: " if where else ""
        text += f"{key}: {reason}" if key else reason
        if suggestion:
            text += f" (did you mean {suggestion!r}?)"
        super().__init__(text)


class DataError(EdgeError):
    """Samples do not fit the task."""

    exit_code = 3


class BundleError(EdgeError):
    """A task bundle cannot be used."""

    exit_code = 3


class ExportError(EdgeError):
    """A module cannot be compiled; `operator` and `module` say what and where."""

    exit_code = 3

    def __init__(self, reason: str, *, operator: str | None = None, module: str | None = None) -> None:
        self.reason, self.operator, self.module = reason, operator, module
        text = reason
        if operator:
            text = f"operator {operator}" + (f" in module {module!r}" if module else "") + f": {reason}"
        super().__init__(text)


class LinkError(EdgeError):
    """The broker could not be used; `hint` says what to try."""

    exit_code = 4

    def __init__(self, what: str, *, where: str, hint: str) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(f"{what} at {where}: {hint}")


class WireError(EdgeError):
    """Bytes from a peer are malformed; `reason` is one of a few words fit for a metric label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}" if detail else reason)


class CodecError(EdgeError):
    """An encoding was used in a way that the algebra forbids."""


class TooLargeError(CodecError):
    """An encoding is larger than what may be sent, and its codec has no smaller one."""


class StorageError(EdgeError):
    """A state directory is unusable."""


def single(error: BaseException) -> BaseException:
    """The one error that an exception group is about: what edgemw raised on purpose before anything else."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    inner = [single(each) for each in error.exceptions]
    return next((each for each in inner if isinstance(each, EdgeError)), inner[0])
