"""Reference outputs: a machine that computes something else than the task's author does not serve the task."""

from __future__ import annotations

import base64
import json
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgemw.compile.export import compile_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.errors import BundleError
from edgemw.core.reference import MOST_VALUES, difference, reference_input
from edgemw.serving.keeper import Keeper
from edgemw.serving.store import ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def served(folder: Path, bundle: Bundle) -> Keeper:
    store = ReleaseStore(folder, 2)
    store.save("digits", bundle, 1, 0, bundle.theta0)
    keeper = Keeper(store)
    keeper.look()
    return keeper


def test_the_input_is_the_same_everywhere() -> None:
    x = reference_input((3,), "float32")
    assert x.dtype == np.float32
    places = [(i * 2654435761 % 2**32) >> 16 for i in range(6)]
    assert x.tolist() == [[0.0] * 3, [1.0] * 3, *np.array(places, np.float64).reshape(2, 3).__truediv__(65536).tolist()]
    assert reference_input((2, 2), "int64").tolist() == [[[0, 0], [0, 0]], [[1, 1], [1, 1]]]


def test_a_compiled_task_has_what_torch_computes(bundle: Bundle) -> None:
    module = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))
    offset = 0
    for parameter in module.parameters():
        values = bundle.theta0[offset : offset + parameter.numel()]
        parameter.data = torch.from_numpy(values.copy()).reshape(parameter.shape)
        offset += parameter.numel()
    expected = module(torch.from_numpy(reference_input((64,), "float32"))).detach().numpy()
    assert bundle.reference is not None
    np.testing.assert_allclose(bundle.reference, expected, rtol=1e-4, atol=1e-6)
    again = read_bundle(bundle.to_bytes())
    assert again.reference is not None
    assert again.reference.tobytes() == bundle.reference.tobytes()
    assert bundle.reseeded(5).reference is None  # it is of other first values


def module() -> nn.Module:
    return nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 2))


def test_a_task_with_a_table_or_with_many_outputs() -> None:
    words = Task("words", module, input=((3,), "int64"), loss="cross_entropy")
    compiled = compile_task(words)
    assert compiled.reference is not None
    assert compiled.reference.shape == (2, 2)
    wide = Task("wide", lambda: nn.Linear(2, MOST_VALUES // 4 + 1), input=(2,), loss="mse")
    assert compile_task(wide).reference is None


def test_where_it_agrees_releases_are_served(tmp_path: Path, bundle: Bundle) -> None:
    keeper = served(tmp_path, bundle)
    assert keeper.slots["digits"].current is not None
    assert keeper.refused == {}


def test_where_it_does_not_no_release_is(tmp_path: Path, bundle: Bundle) -> None:
    assert bundle.reference is not None
    wrong = bundle.reference.copy()
    wrong[2, 7] += 0.1
    keeper = served(tmp_path, replace(bundle, reference=wrong))
    assert keeper.slots["digits"].current is None
    assert keeper.refused["digits"].startswith("release 0 is not served: 1 of 40 outputs are not those that the task's author")


@pytest.mark.parametrize("reference", [7, "", "%%%", "AAAA", base64.b64encode(bytes(4 * 41)).decode()])
def test_a_reference_that_is_none_is_refused(bundle: Bundle, reference: object) -> None:
    document, parts = _opened(bundle.to_bytes())
    with pytest.raises(BundleError, match="reference"):
        read_bundle(_closed(document | {"reference": reference}, parts))


def test_what_counts_as_the_same() -> None:
    reference = np.array([[1.0, -100.0, np.nan]], np.float32)
    assert difference(reference + np.float32(0.05), reference) == ""
    assert difference(reference + np.float32(0.2), reference).startswith("2 of 3 outputs")
    assert difference(np.nan_to_num(reference), reference).startswith("1 of 3 outputs")
    assert "shape" in difference(reference[0], reference)


def _opened(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(parts.pop("manifest.json")), parts


def _closed(document: dict[str, Any], parts: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"manifest.json": json.dumps(document).encode(), **parts}.items():
            archive.writestr(name, data)
    return buffer.getvalue()
