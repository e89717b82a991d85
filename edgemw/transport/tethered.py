"""Run a command that dies with the process that asked for it: `python tethered.py PARENT_PID command arguments...`.

It asks the kernel for the signal, then becomes the command, so the process id stays the same. Linux only; elsewhere
the command runs untethered. Run as a file, so that nothing else of this package is imported first.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: list[str]) -> NoReturn:
    """Tether this process and become the command."""
    parent, *command = arguments
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            sys.exit("prctl failed")
        if os.getppid() != int(parent):  # it was gone before we asked
            sys.exit(0)
    os.execvp(command[0], command)  # noqa: S606  # there is no shell, and that is the point


if __name__ == "__main__":
    main(sys.argv[1:])
