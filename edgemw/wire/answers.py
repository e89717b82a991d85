"""The last word about each update: said again when the update is offered again, so that it need not travel again."""

from __future__ import annotations

from dataclasses import replace

from edgemw.wire import topics
from edgemw.wire.messages import Ack, Frame, Outcome
from edgemw.wire.traffic import Send

MAX_ANSWERS = 1024

_Key = tuple[str, str, int, int]  # task, node, boot and seq: numbers begin anew in every task of a node


class Answers:
    """Acknowledgements and outcomes that were sent, the newest MAX_ANSWERS of them. An outcome outlives every Ack."""

    def __init__(self) -> None:
        self._sent: dict[_Key, Send] = {}

    def remember(self, send: Send) -> None:
        """Note an answer that is on its way; other messages are left alone."""
        message = send.frame.message
        if not isinstance(message, Ack | Outcome):
            return
        for outcome in message.outcomes if isinstance(message, Ack) else ():
            self.remember(replace(send, frame=replace(send.frame, message=outcome)))
        key = send.frame.task, topics.parse(send.topic)["node"], message.boot, message.seq
        before = self._sent.pop(key, None)
        if before is not None and isinstance(message, Ack):
            send = before
        self._sent[key] = send
        if len(self._sent) > MAX_ANSWERS:
            del self._sent[next(iter(self._sent))]

    def about(self, frame: Frame) -> Send | None:
        """What was answered to the update that has the envelope of this frame."""
        return self._sent.get((frame.task, frame.node, frame.boot, frame.seq))
