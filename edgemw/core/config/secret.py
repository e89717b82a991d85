"""A secret in a configuration file: a reference, never the secret itself. Nothing here reads one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Secret:
    """Where a secret stands: `{ file = "NAME" }` or `{ env = "NAME" }`; `beside` is the folder of the file that says so."""

    file: str | None = None
    env: str | None = None
    beside: str | None = None

    def __repr__(self) -> str:
        return f"Secret({'file' if self.file else 'env'}={self.file or self.env!s}, value=***)"
