"""A server's answer as a value, where a test has no loop."""

from __future__ import annotations

import asyncio

from edgemw.serving.api import Answer, Api
from edgemw.serving.requests import Requests
from edgemw.serving.turns import Turns


def answered(api: Api, method: str, path: str, body: bytes = b"", json_bytes: int | None = None) -> Answer:
    """The only answer to a request, which is there at once."""

    async def ask() -> list[Answer]:
        heard: list[Answer] = []
        Requests(api, Turns()).take(method, path, body, json_bytes, heard.append)
        return heard

    [answer] = asyncio.run(ask())
    return answer
