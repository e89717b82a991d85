"""Topic aliases of one connection (MQTT 5.0, section 3.3.2.3.4): a topic that was sent before goes as a number of 3 bytes.

The broker says how many it remembers; where there are more topics, the one that was not used for longest gives up its number.
"""

from __future__ import annotations


class TopicAliases:
    """The topics that the broker knows by number."""

    def __init__(self, maximum: int = 0) -> None:
        self._maximum = maximum
        self._numbers: dict[str, int] = {}  # the last used at the end

    def use(self, topic: str) -> tuple[str, int]:
        """What to write instead of a topic: its name, empty where the number says it, and its number, 0 for none."""
        if self._maximum == 0:
            return topic, 0
        number = self._numbers.pop(topic, 0)
        written = "" if number else topic
        if not number:
            full = len(self._numbers) >= self._maximum
            number = self._numbers.pop(next(iter(self._numbers))) if full else len(self._numbers) + 1
        self._numbers[topic] = number
        return written, number
