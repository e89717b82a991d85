"""Events and actions that carry messages and blobs between a role and its shell."""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.wire.messages import Blob, Frame
from edgemw.wire.topics import Topic


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message came; its topic was checked against its sender."""

    topic: Topic
    frame: Frame


@dataclass(frozen=True, slots=True)
class Fetched:
    """A blob that was asked for is here, verified."""

    blob: Blob
    data: bytes


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A blob that was asked for will never come here, and why."""

    blob: Blob
    reason: str


@dataclass(frozen=True, slots=True)
class FetchStalled:
    """Nothing of a blob that was asked for has come for long: it may not be on the broker any more. It is waited for still."""

    blob: Blob


@dataclass(frozen=True, slots=True)
class Published:
    """A blob is on the broker."""

    domain: str
    blob: Blob


Emitted = Arrived | Fetched | FetchFailed | FetchStalled | Published
"""What comes from the network."""


@dataclass(frozen=True, slots=True)
class Send:
    """Publish a message; it may be lost, whoever needs an answer asks again."""

    topic: str
    frame: Frame
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """Send an update, in chunks if it is large; it may be lost, whoever needs an answer asks again."""

    topic: str
    frame: Frame


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a blob from a domain; Fetched follows, however long it takes, or FetchFailed."""

    domain: str
    blob: Blob


@dataclass(frozen=True, slots=True)
class PublishBlob:
    """Put a blob on the broker, retained; Published follows."""

    domain: str
    blob: Blob
    data: bytes


@dataclass(frozen=True, slots=True)
class Retire:
    """Remove a blob from the broker."""

    domain: str
    blob: Blob
