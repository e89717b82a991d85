"""From one raw value to a value of the wanted type: numbers, texts, choices, durations, sizes, paths, secrets."""

from __future__ import annotations

import math
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from edgemw.core.config.layers import ENV_PREFIX, ENV_PRIVATE_PREFIX
from edgemw.core.config.named import SUFFIX, NameOrFile
from edgemw.core.config.secret import Secret
from edgemw.core.config.tree import Leaf, Table, Tree
from edgemw.core.config.units import Duration, Size, duration, size
from edgemw.core.config.words import nearest, one_of, quoted

MAX_INTEGER = (1 << 63) - 1


class MismatchError(Exception):
    """A raw value is not of the wanted type; the builder turns this into a ConfigError with the place.

    Its text is the reason; empty where "expected this, found that" says everything.
    """


def read_scalar(hint: Any, leaf: Leaf, folder: Path) -> object:
    """The value; a relative path is relative to `folder`. Raises MismatchError."""
    text = leaf.text if leaf.text is not None else leaf.raw
    if get_origin(hint) is Literal:
        return _choice(get_args(hint), (leaf.raw, text))
    if hint is str and isinstance(text, str):
        return text
    if hint is NameOrFile and isinstance(text, str):
        return os.path.normpath(folder / text) if text.endswith(SUFFIX) else text
    if hint is Path and isinstance(text, str) and text and "\0" not in text:
        return Path(os.path.normpath(folder / text))
    if hint in (Duration, Size):
        return _quantity(hint, leaf.raw)
    return _number(hint, leaf.raw)


def read_secret(tree: Tree, folder: Path) -> Secret:
    """A reference to a secret, beside `folder`. Raises MismatchError, and never repeats what else stands there."""
    if not isinstance(tree, Table):
        raise MismatchError('a secret is never written here: give { file = "NAME" } or { env = "NAME" }')
    texts = {
        key: leaf.raw for key, leaf in tree.items.items() if isinstance(leaf, Leaf) and isinstance(leaf.raw, str) and leaf.raw
    }
    if len(texts) != len(tree.items) or set(texts) not in ({"file"}, {"file", "beside"}, {"env"}):
        raise MismatchError('a secret is exactly { file = "NAME" } or { env = "NAME" }')
    if "file" in texts:
        return Secret(file=texts["file"], beside=texts.get("beside") or str(folder))
    if texts["env"].startswith(ENV_PREFIX) and not texts["env"].startswith(ENV_PRIVATE_PREFIX):
        raise MismatchError(f"{ENV_PREFIX}* names settings: keep the secret in {ENV_PRIVATE_PREFIX}NAME or in a name of your own")
    return Secret(env=texts["env"])


def _choice(choices: Sequence[object], given: Sequence[object]) -> object:
    for choice in choices:
        if any(type(value) is type(choice) and value == choice for value in given):
            return choice
    near = nearest(str(given[0]), [str(choice) for choice in choices])
    raise MismatchError(f"expected {one_of(choices)}, found {quoted(given[0])}" + (f"; did you mean {near!r}?" if near else ""))


def _quantity(hint: Any, raw: object) -> object:
    if hint is Size and isinstance(raw, int) and not isinstance(raw, bool):
        return _number(int, raw)
    if not isinstance(raw, str):
        raise MismatchError
    try:
        return duration(raw) if hint is Duration else size(raw)
    except ValueError:
        raise MismatchError from None


def _number(hint: Any, raw: object) -> object:
    if isinstance(raw, int) and abs(raw) > MAX_INTEGER:
        raise MismatchError("is a larger number than fits in 64 bits")
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        if not math.isfinite(raw):
            raise MismatchError("must be a finite number")
        return float(raw)
    if hint in (int, bool) and type(raw) is hint:
        return raw
    raise MismatchError
