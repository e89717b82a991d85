"""The codecs by the name that stands in files and on the wire. A new built-in codec is one file and one line here.

Other distributions add codecs in the entry point group `edgemw.codecs`: the entry's name is the codec's, and its object makes the
codec from parameters by name. They are looked for only when a name is not built in, so that nothing that is installed can take
the place of a built-in codec, and imported only when they are asked for.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib import metadata
from typing import get_args

from edgemw.compression.codec import Codec, Merging, Parameter
from edgemw.compression.dense import Dense
from edgemw.compression.lanes import Lanes
from edgemw.compression.lattice import Lattice
from edgemw.compression.powersgd import PowerSgd
from edgemw.compression.qsgd import Qsgd
from edgemw.compression.signsgd import SignSgd
from edgemw.compression.topk import TopK
from edgemw.core.errors import CodecError, EdgeError, WireError

GROUP = "edgemw.codecs"
CODECS: dict[str, Callable[..., Codec]] = {
    "lattice": Lattice,
    "lanes": Lanes,
    "dense": Dense,
    "topk": TopK,
    "qsgd": Qsgd,
    "signsgd": SignSgd,
    "powersgd": PowerSgd,
}


def codec_named(name: str, /, **parameters: Parameter) -> Codec:
    """The codec of a release; reading and merging need no parameters.

    Args:
        name: built in, or of an installed distribution.
        **parameters: of the encoder, such as k of topk.

    Raises:
        WireError: a name that nobody has.
        CodecError: a parameter that the codec does not have, or a value that it refuses; a codec of another distribution that
            cannot be used. The message names the distribution.
    """
    if name in CODECS:
        return _made(name, CODECS[name], parameters)
    offers = [entry for entry in _installed() if entry.name == name]
    if not offers:
        raise WireError("codec", f"no codec {name!r}; known: {', '.join([*CODECS, *sorted({e.name for e in _installed()})])}")
    if len(offers) > 1:
        raise CodecError(f"codec {name!r} is offered by {' and '.join(sorted(map(_distribution, offers)))}")
    return _from(offers[0], parameters)


def codec_names() -> tuple[str, ...]:
    """The names of all codecs: the built-in ones, then those that are installed, which are not imported for it.

    Raises:
        CodecError: a distribution offers a codec under the name of a built-in one.
    """
    for entry in _installed():
        if entry.name in CODECS:
            raise CodecError(f"{_distribution(entry)} offers a codec {entry.name!r}, which is the name of a built-in one")
    return (*CODECS, *sorted({entry.name for entry in _installed()}))


@functools.cache
def _installed() -> tuple[metadata.EntryPoint, ...]:
    """Found once: asking every distribution takes long, and what is installed stays the same while a process runs."""
    return tuple(metadata.entry_points(group=GROUP))


def _distribution(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "a distribution without a name"


def _from(entry: metadata.EntryPoint, parameters: dict[str, Parameter]) -> Codec:
    """The codec of a distribution, which may fail in any way."""
    try:
        codec = _made(entry.name, entry.load(), parameters)
    except EdgeError:
        raise
    except Exception as error:
        raise CodecError(f"codec {entry.name!r} of {_distribution(entry)} does not load: {error!r}") from error
    if not isinstance(codec, Codec) or codec.name != entry.name or codec.merging not in get_args(Merging):
        raise CodecError(f"codec {entry.name!r} of {_distribution(entry)} does not keep the protocol of edgemw.compression.codec")
    return codec


def _made(name: str, make: Callable[..., Codec], parameters: dict[str, Parameter]) -> Codec:
    try:
        return make(**parameters)
    except TypeError:  # seldom: looking at a signature takes ten times as long as making most codecs
        _refuse_unknown(name, make, parameters)
        raise


def _refuse_unknown(name: str, make: Callable[..., Codec], parameters: dict[str, Parameter]) -> None:
    """Raise CodecError where it is the parameters that do not fit."""
    known = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    unknown = sorted(parameters.keys() - known.keys())
    if unknown:
        raise CodecError(f"codec {name!r} has no parameter {unknown[0]!r}; its parameters: {', '.join(known) or 'none'}")
