"""`edgemw.Predictor`: predictions inside one's own program, from a device's store. It needs onnxruntime and numpy only."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.bundle import Manifest
from edgemw.core.errors import StorageError
from edgemw.serving.session import open_release
from edgemw.serving.slot import Served, as_batch
from edgemw.serving.store import ReleaseStore, StoredRelease, chosen_task

_FLOAT32 = np.dtype(np.float32)


class Predictor:
    """The latest release of a task in a store, or the one that was chosen (`edgemw model`), as a function of arrays.

    Safe to use from several threads.

    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from edgemw import Predictor
    >>> from edgemw.core.bundle import read_bundle
    >>> from edgemw.serving.store import ReleaseStore

    A device keeps such a store; here we make one from a bundle, with the weights that it starts from:

    >>> folder = tempfile.TemporaryDirectory()
    >>> bundle = read_bundle(Path("examples/quickstart/digits.edge").read_bytes())
    >>> store = ReleaseStore(Path(folder.name), keep=2)
    >>> store.save("digits", bundle, run=1, number=0, theta=bundle.theta0)

    >>> predictor = Predictor(folder.name)
    >>> predictor.task, predictor.release
    ('digits', 0)
    >>> predictor.predict(np.zeros((3, 64), np.float32)).shape  # a batch
    (3, 10)
    >>> predictor.predict(np.zeros(64)).shape  # one sample
    (10,)

    >>> store.save("digits", bundle, run=1, number=1, theta=bundle.theta0)
    >>> predictor.refresh(), predictor.release
    (True, 1)
    >>> predictor.refresh()
    False
    >>> folder.cleanup()
    """

    def __init__(self, store: str | os.PathLike[str], task: str | None = None, *, threads: int = 1) -> None:
        """Open the chosen release, or the latest that is whole.

        Args:
            store: the folder of a `ReleaseStore`.
            task: its name; may be left out where the store has one task only.
            threads: compute threads of one prediction; more than 1 pays from about a million parameters.

        Raises:
            ConfigError: there is no such store, or no such task in it, or it has several and none was named.
            StorageError: the store cannot be read, or no release in it is whole.
            BundleError: ONNX Runtime cannot open the task's graph.
        """
        folder = Path(store)
        self._store, self._threads = ReleaseStore(folder, keep=1), threads
        self._task = chosen_task(folder, self._store.tasks(), task)
        self._looked_at, _ = self._store.wanted_place(self._task)
        release = self._store.wanted(self._task)
        if release is None:
            raise StorageError(
                f"{folder / self._task}: every release is damaged; the device fetches a new one when it next starts"
            )
        self._place, self._ready = release.place, self._opened(release)

    @property
    def task(self) -> str:
        """Name of the task."""
        return self._task

    @property
    def release(self) -> int:
        """Number of the release that answers."""
        return self._ready[0].release

    @property
    def precision(self) -> str:
        """What computes the outputs, float32 or int8."""
        return self._ready[0].precision

    @property
    def manifest(self) -> Manifest:
        """The task's manifest: shapes, dtypes, classes."""
        return self._ready[0].manifest

    def predict(self, x: Any) -> npt.NDArray[np.float32]:
        """The model's outputs: float32[*output] for one sample [*input], float32[N, *output] for a batch [N, *input].

        Numbers of another dtype are converted to the task's.

        Raises:
            DataError: the shape does not fit, x holds no numbers, or a value is NaN or infinite.
        """
        served, usual = self._ready
        if type(x) is np.ndarray and x.shape == usual and x.dtype is _FLOAT32 and math.isfinite(np.vdot(x, x)):
            return served.predict(x)  # one sample as a batch, in few steps: after a pause each of them is ten times slower
        batch, single = as_batch(x, served.manifest.input)
        outputs = served.predict(batch)
        return outputs[0] if single else outputs

    def refresh(self) -> bool:
        """Go over to a newer release if the store has one, or to the one that was chosen; whether it did.

        A look that finds nothing new costs one `listdir`.

        Raises:
            StorageError: the store cannot be read.
            BundleError: ONNX Runtime cannot open the newer release; the one before it goes on answering.
        """
        wanted, choice = self._store.wanted_place(self._task)
        if wanted == self._looked_at:
            return False
        try:
            release = self._store.latest(self._task) if choice is None else self._store.at(self._task, wanted)
        except StorageError:
            return False  # what was chosen cannot be read now: what answers goes on, and it is tried again
        self._looked_at = wanted
        if release is None or release.place == self._place:
            return False
        self._place, self._ready = release.place, self._opened(release)
        return True

    def _opened(self, release: StoredRelease) -> tuple[Served, tuple[int, ...]]:
        """What answers, and the shape of a batch of one."""
        session = open_release(release, threads=self._threads)
        served = Served(session.run, release.task, release.number, release.manifest, session.precision)
        spec = release.manifest.input
        return served, (1, *spec.shape) if spec.dtype == "float32" else ()
