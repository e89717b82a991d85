"""A TCP proxy that does to connections what networks do: delay, a low rate, cuts, silence, refusal. No root needed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Self

READ_BYTES = 16 * 1024
QUEUED_READS = 64


class Direction:
    """One way through the proxy; what is set here counts at once, for every connection.

    Attributes:
        delay_s: added to every byte, without lowering the rate.
        rate_bytes_per_s: 0 for no limit.
        passed_bytes: what has come through.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.rate_bytes_per_s = 0.0
        self.passed_bytes = 0
        self._moved = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()

    async def reached(self, total_bytes: int) -> None:
        """Return when that much has come through since the beginning."""
        while self.passed_bytes < total_bytes:
            self._moved.clear()
            await self._moved.wait()

    def swallow(self) -> None:
        """Let nothing through any more, without a sign to either side (a half-open connection)."""
        self._open.clear()

    def release(self) -> None:
        """Let through again, what was held back first."""
        self._open.set()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the end."""
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_READS)

        async def deliver() -> None:
            while True:
                due_s, data = await on_the_way.get()
                await asyncio.sleep(max(0.0, due_s - loop.time()))
                await self._open.wait()
                if self.rate_bytes_per_s:
                    await asyncio.sleep(len(data) / self.rate_bytes_per_s)
                writer.write(data)
                self.passed_bytes += len(data)
                self._moved.set()
                await writer.drain()
                on_the_way.task_done()

        async with asyncio.TaskGroup() as group:
            delivery = group.create_task(deliver())
            while data := await reader.read(READ_BYTES):
                await on_the_way.put((loop.time() + self.delay_s, data))
            await on_the_way.join()
            delivery.cancel()


class FaultProxy:
    """Listens on a loopback port and forwards to another: `async with FaultProxy(port) as proxy`."""

    def __init__(self, target_port: int, port: int = 0) -> None:
        self.up = Direction()  # from the client to the broker
        self.down = Direction()
        self.port = port
        self.accepted = 0
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"mqtt://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.refuse()
        for direction in (self.up, self.down):  # whatever is held back has nowhere to go now
            direction.delay_s = direction.rate_bytes_per_s = 0.0
            direction.release()
        await asyncio.gather(*self._tasks)

    async def accept(self) -> None:
        """Listen, again on the same port after `refuse`."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def refuse(self) -> None:
        """Cut every connection and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            opened = writer.get_extra_info("socket")
            if opened is not None:
                with contextlib.suppress(OSError):  # closed in the meantime
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.accepted += 1
        try:
            with contextlib.suppress(OSError):
                await self._connect(reader, writer)
        except* OSError:
            pass  # one side is gone, and now the other will be
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._writers.add(far_writer)
        try:
            async with asyncio.TaskGroup() as group:
                upward = group.create_task(self.up.pump(reader, far_writer))
                downward = group.create_task(self.down.pump(far_reader, writer))
                await asyncio.wait((upward, downward), return_when=asyncio.FIRST_COMPLETED)
                upward.cancel()
                downward.cancel()
        finally:
            self._writers.discard(far_writer)
            far_writer.transport.abort()
