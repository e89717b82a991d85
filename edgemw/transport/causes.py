"""Why a connection was lost, out of the log of the MQTT client: it shows the exception nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class _CauseHandler(logging.Handler):
    def __init__(self, lost: Callable[[Exception], None], bug: Callable[[Exception], None]) -> None:
        super().__init__(logging.ERROR)
        self._lost = lost
        self._bug = bug

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on the exception, or the text where there is none."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors = [argument for argument in arguments if isinstance(argument, Exception)]
        error = errors[0] if errors else RuntimeError(record.getMessage())
        if str(record.msg).startswith("Caught exception in"):
            log.error("%s", record.getMessage(), exc_info=error)
            self._bug(error)
        else:
            self._lost(error)


def cause_logger(lost: Callable[[Exception], None], bug: Callable[[Exception], None]) -> logging.Logger:
    """A logger for one client, outside the tree of loggers.

    Args:
        lost: takes what broke the socket.
        bug: takes what one of our callbacks raised; may be called from any thread.
    """
    logger = logging.Logger("mqtt client", logging.ERROR)
    logger.addHandler(_CauseHandler(lost, bug))
    return logger
