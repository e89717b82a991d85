"""A task bundle: one `.edge` file (a zip) that brings a task to a fleet as data.

Parts, in this order, stored with their sha256 in the manifest:

    manifest.json   this file's `Manifest`
    infer.onnx      x[B, *input] -> y[B, *output]; weightless, see below
    train.onnx      (theta[P], x[B, *input], y[B, *target] [, seed]) -> (loss, grad[P] [, buffers[Q]])
    theta0          float32[P], little endian; with a recipe, only the tensors that are not drawn, and none where all are

`infer.onnx` holds no weights: each parameter is external data in the virtual file `WEIGHTS_FILE` at 4 x its offset in theta.
`buffers` are the new values of the coordinates that are not trained by gradient (running statistics), in layout order.
`manifest.json` may have "reference": outputs for theta0 (`reference.py`), base64 of float32, little endian.
With a recipe (`manifest.json` has "initial", see `initial.py`) readers draw theta0 from a seed and check its sha256.
A bundle without `train.onnx` (`manifest.python` set) is trained by the torch oracle, on devices that have torch and that module.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import BundleError, ConfigError
from edgemw.core.ids import valid_id
from edgemw.core.initial import Recipe, read_recipe
from edgemw.core.plan import check_plan
from edgemw.core.reference import MOST_VALUES, ROWS, WHOLE_ROWS

FORMAT = 1
WEIGHTS_FILE = "w.bin"
MAX_PART_BYTES = 1 << 30
MAX_MANIFEST_BYTES = 4 << 20
_PARTS = ("infer.onnx", "train.onnx", "theta0")
_DTYPES = ("float32", "int64")

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, struct.error)
"""What zipfile and json raise on bytes that are no bundle; RuntimeError covers encryption and nesting too deep for json."""

Vector = npt.NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)
"""The largest value in a vector."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One named tensor inside theta; `offset` counts elements."""

    name: str
    shape: tuple[int, ...]
    offset: int
    trainable: bool = True

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Spec:
    """Shape (without the batch dimension) and dtype of one array."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a device must know about a task besides the graphs."""

    name: str
    layout: tuple[Slot, ...]
    input: Spec
    target: Spec
    output: Spec
    loss: str
    metrics: tuple[str, ...]
    training: dict[str, int | float | str] = field(default_factory=dict)
    classes: int | None = None
    seeded: bool = False
    python: str | None = None
    format: int = FORMAT

    @property
    def size(self) -> int:
        """P, the length of theta."""
        return sum(slot.size for slot in self.layout)

    @property
    def buffers(self) -> tuple[Slot, ...]:
        """The slots that gradient descent does not train."""
        return tuple(slot for slot in self.layout if not slot.trainable)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A manifest with its parts, checked.

    Attributes:
        manifest: what a device must know.
        infer, train: the graphs; None where torch trains.
        theta0: float32[P], the first values.
        recipe: that makes them, where they are drawn.
        reference: outputs for them, see `reference.py`; None where there are none.
    """

    manifest: Manifest
    infer: bytes
    train: bytes | None
    theta0: Vector
    recipe: Recipe | None = None
    reference: Vector | None = None

    def to_bytes(self) -> bytes:
        """The `.edge` file; equal bundles give equal bytes.

        Raises:
            BundleError: the recipe does not make theta0.
        """
        theta0, document = self._initial()
        parts = {"infer.onnx": self.infer} | ({"theta0": theta0} if theta0 else {})
        if self.train is not None:
            parts["train.onnx"] = self.train
        if self.reference is not None:
            document["reference"] = base64.b64encode(self.reference.astype("<f4").tobytes()).decode()
        document |= asdict(self.manifest) | {"parts": {k: hashlib.sha256(v).hexdigest() for k, v in sorted(parts.items())}}
        text = json.dumps(document, indent=1, sort_keys=True).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in [("manifest.json", text), *((n, parts[n]) for n in _PARTS if n in parts)]:
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
        return buffer.getvalue()

    def reseeded(self, seed: int) -> Bundle:
        """The same task with the first values that its recipe makes of another seed. Raises BundleError without a recipe."""
        if self.recipe is None:
            raise BundleError("the bundle carries its first values: compile it with --initial seeded")
        recipe, sizes = replace(self.recipe, seed=seed), [slot.size for slot in self.manifest.layout]
        theta0 = recipe.make(sizes, self.recipe.stored(sizes, self.theta0))
        return replace(self, recipe=recipe, theta0=theta0, reference=None)

    def _initial(self) -> tuple[bytes, dict[str, Any]]:
        """What the part theta0 holds, and what the manifest says of the rest."""
        if self.recipe is None:
            return theta_bytes(self.theta0), {}
        sizes = [slot.size for slot in self.manifest.layout]
        stored = self.recipe.stored(sizes, self.theta0)
        digest = _theta_digest(self.theta0)
        if _theta_digest(self.recipe.make(sizes, stored)) != digest:
            raise BundleError("theta0 is not what its recipe makes: leave the recipe out")
        return stored.astype("<f4").tobytes(), {"initial": self.recipe.document() | {"sha256": digest}}


def theta_view(theta: Vector) -> memoryview:
    """The bytes of `theta_bytes`, not copied, through which nobody can write."""
    return theta.astype("<f4", copy=False).data.cast("B").toreadonly()


def theta_bytes(theta: Vector) -> bytes:
    """Theta as it travels: float32, little endian."""
    return theta.astype("<f4").tobytes()


def read_bundle(data: bytes) -> Bundle:
    """Parse and verify an `.edge` file.

    Raises:
        BundleError: not a bundle, another format version, a missing part, a wrong hash, a layout that does not cover theta, or
            training defaults that no release can say.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            document = json.loads(_part(archive, "manifest.json", MAX_MANIFEST_BYTES))
            if not isinstance(document, dict):
                raise BundleError("manifest.json is not an object")
            if document.get("format") != FORMAT:
                raise BundleError(
                    f"bundle format {document.get('format')!r}, this edgemw reads format {FORMAT}: "
                    "compile the task again with this version"
                )
            hashes = document.get("parts")
            if not isinstance(hashes, dict) or not set(hashes) <= set(_PARTS):
                raise BundleError("manifest.json does not list the parts")
            parts = {name: _verified(archive, name, str(digest)) for name, digest in hashes.items()}
    except _DAMAGE as error:
        raise BundleError(f"not a task bundle: {error}") from error
    manifest = _manifest(document)
    if "infer.onnx" not in parts:
        raise BundleError("the bundle lacks infer.onnx")
    if "train.onnx" not in parts and manifest.python is None:
        raise BundleError("the bundle has no train.onnx and names no Python task")
    recipe, theta0 = _theta0(document.get("initial"), manifest, parts.get("theta0", b""))
    if not np.isfinite(theta0).all():
        raise BundleError("theta0 holds NaN or infinite values")
    reference = _reference(document.get("reference"), manifest)
    return Bundle(manifest, parts["infer.onnx"], parts.get("train.onnx"), theta0, recipe, reference)


def _theta0(initial: Any, manifest: Manifest, part: bytes) -> tuple[Recipe | None, Vector]:
    """The recipe, if there is one, and the vector."""
    sizes = [slot.size for slot in manifest.layout]
    recipe = None if initial is None else read_recipe(initial, len(sizes))
    missing = sizes if recipe is None else [size for size, draw in zip(sizes, recipe.draws, strict=True) if draw is None]
    if len(part) != 4 * sum(missing):
        raise BundleError(f"theta0 has {len(part)} bytes, the layout needs {4 * sum(missing)}")
    if 4 * manifest.size > MAX_PART_BYTES:
        raise BundleError(f"theta0 has {4 * manifest.size} bytes, at most {MAX_PART_BYTES} are accepted")
    stored = np.frombuffer(part, "<f4").astype(np.float32)
    if recipe is None:
        return None, stored
    theta0 = recipe.make(sizes, stored)
    if _theta_digest(theta0) != initial.get("sha256"):
        raise BundleError("theta0 does not match its sha256: the bundle is damaged or was altered")
    return recipe, theta0


def _reference(text: Any, manifest: Manifest) -> Vector | None:
    """Outputs float32[rows, *output]."""
    if text is None:
        return None
    shape = (ROWS if manifest.input.dtype == "float32" else WHOLE_ROWS, *manifest.output.shape)
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise BundleError(f"manifest.json: reference is not base64: {error}") from error
    if len(data) != 4 * math.prod(shape) or math.prod(shape) > MOST_VALUES:
        raise BundleError(f"manifest.json: reference has {len(data)} bytes, outputs of shape {list(shape)} have another number")
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(shape)


def _theta_digest(theta: Vector) -> str:
    return hashlib.sha256(theta_view(theta)).hexdigest()


def _part(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise BundleError(f"the bundle lacks {name}") from None
    if info.file_size > limit:
        raise BundleError(f"{name} is {info.file_size} bytes, at most {limit} are accepted")
    with archive.open(info) as part:
        data = part.read(limit + 1)
    if len(data) > limit:
        raise BundleError(f"{name} is larger than it claims")
    return data


def _verified(archive: zipfile.ZipFile, name: str, digest: str) -> bytes:
    data = _part(archive, name, MAX_PART_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{name} does not match its sha256: the bundle is damaged or was altered")
    return data


def _manifest(document: dict[str, Any]) -> Manifest:
    try:
        layout = tuple(
            Slot(str(s["name"]), tuple(int(n) for n in s["shape"]), int(s["offset"]), bool(s["trainable"]))
            for s in document["layout"]
        )
        specs = {
            k: Spec(tuple(int(n) for n in document[k]["shape"]), str(document[k]["dtype"])) for k in ("input", "target", "output")
        }
        training = document["training"]
        if not isinstance(training, dict):
            raise BundleError("manifest.json: training is not a table")
        check_plan(training, "training")
        manifest = Manifest(
            name=str(document["name"]),
            layout=layout,
            input=specs["input"],
            target=specs["target"],
            output=specs["output"],
            loss=str(document["loss"]),
            metrics=tuple(str(m) for m in document["metrics"]),
            training=training,
            classes=None if document["classes"] is None else int(document["classes"]),
            seeded=bool(document["seeded"]),
            python=None if document["python"] is None else str(document["python"]),
        )
    except ConfigError as error:
        raise BundleError(f"manifest.json: {error}") from error
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BundleError(f"manifest.json is incomplete: {error!r}") from error
    if not valid_id(manifest.name):
        raise BundleError(f"task name {manifest.name!r}: use 1 to 40 of a-z, 0-9 and '-'")
    if any(spec.dtype not in _DTYPES for spec in specs.values()):
        raise BundleError(f"arrays are one of {_DTYPES}")
    offset = 0
    for slot in layout:
        if slot.offset != offset or any(n < 0 for n in slot.shape):
            raise BundleError(f"layout: {slot.name!r} does not start at {offset}")
        offset += slot.size
    return manifest
