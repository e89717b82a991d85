"""Where a server listens: "HOST:PORT", as people write it in files and flags."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

from edgemw.core.errors import ConfigError

_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^:/\[\]]*)):(?P<port>\d{1,5})\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """Of a server.

    Attributes:
        host: name or number; empty is every interface of IPv4.
        port: 0 is any free one.
        text: as it was written.
        setting: the configuration key to name when it cannot be used.
    """

    host: str
    port: int
    text: str
    setting: str

    @classmethod
    def parse(cls, text: str, setting: str) -> Self:
        """Read "HOST:PORT", or "[HOST]:PORT" for IPv6. Raises ConfigError."""
        match = _ADDRESS.match(text)
        if match is None or int(match["port"]) > 65535:
            raise ConfigError(f'{text!r} is no address: give "HOST:PORT"', key=setting)
        return cls(match["six"] or match["host"] or "", int(match["port"]), text, setting)

    @property
    def is_six(self) -> bool:
        """Whether it is one of IPv6."""
        return ":" in self.host

    def url(self, port: int) -> str:
        """Where clients on this machine find the server, which listens on this port."""
        host = self.host or "127.0.0.1"
        return f"http://[{host}]:{port}" if self.is_six else f"http://{host}:{port}"

    def refused(self, error: OSError) -> ConfigError:
        """What to say where the system does not give it."""
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error  # without what asyncio adds
        reason = f"cannot listen on {self.text}: {why}; give another address, or port 0 for any free one"
        return ConfigError(reason, key=self.setting)
