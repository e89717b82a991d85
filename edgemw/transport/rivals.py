"""Two nodes with one id: each ends the connection of the other, for ever. Some brokers of MQTT 5 say so; others hang up."""

from __future__ import annotations

from collections import deque

HANG_UPS = 3
WITHIN_S = 10.0


class Rivals:
    """Puts into words why a broker ended a connection; outlives the connections of a link."""

    def __init__(self, client_id: str) -> None:
        self._client_id = client_id
        self._hung_up_at_s: deque[float] = deque(maxlen=HANG_UPS)

    def taken_over(self) -> str:
        """The broker said that the session was taken over."""
        return f"another client with the id {self._client_id} has connected: two nodes have the same id?"

    def hung_up(self, now_s: float) -> str:
        """The broker gave no reason; once may be a restart, several times in a row has another cause."""
        self._hung_up_at_s.append(now_s)
        if len(self._hung_up_at_s) < HANG_UPS or now_s - self._hung_up_at_s[0] > WITHIN_S:
            return "the broker closed the connection"
        return (
            f"the broker closed the connection {HANG_UPS} times within {WITHIN_S:g} s:"
            f" another client has the id {self._client_id}, two nodes have the same id?"
        )
