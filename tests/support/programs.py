"""Programs that tests run beside edgemw."""

from __future__ import annotations

import os
import shutil

import pytest


def installed(program: str) -> str:
    """Where a program is; skip without it, but fail where CI is set."""
    return needed(program, shutil.which(program))


def needed(program: str, found: str | None) -> str:
    """Where a program was found, as `installed`."""
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed, and CI must have it")
        pytest.skip(f"{program} is not installed")
    return found
