"""The pure-Python broker in a process of its own: `python -m edgemw.transport.amqtt_child HOST PORT`.

A process, because a broker in the event loop of a busy node misses keep-alives. amqtt (0.12) speaks MQTT 3.1.1 only,
knows no shared subscriptions, never enforces keep-alive (so no will for a silent node), never sends an unacknowledged
publication again, and forgets everything when it stops: good enough to try edgemw on a machine without mosquitto.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Any

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin

log = logging.getLogger(__name__)


class Loopback(BaseAuthPlugin):  # type: ignore[misc]  # amqtt ships no types
    """Lets everyone in, since only this machine can connect.

    amqtt's own plugin for that marks the session as anonymous, and such sessions are never kept.
    """

    async def authenticate(self, *, session: Any) -> bool:
        """Always."""
        return True


async def serve(host: str, port: int) -> None:
    """Run until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}", "max_connections": 1000}},
            "plugins": {f"{Loopback.__module__}.{Loopback.__qualname__}": {}},
            "session_expiry_interval": 86400,
        }
    )
    await broker.start()
    log.warning("listening on %s:%d", host, port)
    await stopped.wait()
    await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Run as a module this file is __main__; amqtt loads the plugin by its importable name.
    from edgemw.transport import amqtt_child

    asyncio.run(amqtt_child.serve(sys.argv[1], int(sys.argv[2])))
