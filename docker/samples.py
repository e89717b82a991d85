"""Deals the samples of a deployment file out to its devices, as `edgemw up` does: FOLDER/device-0.npz and so on.

`python samples.py edgemw.toml FOLDER`; the same file gives the same samples each time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgemw.app.dealing import deal_out
from edgemw.app.deployment import device_ids, load_deployment
from edgemw.app.wiring import load_bundle
from edgemw.core.errors import EdgeError


def main(file: Path, folder: Path) -> None:
    """Deal out, and say how. Raises EdgeError."""
    settings = load_deployment(file, None, os.environ, [])
    if settings.task.bundle is None or settings.data is None:
        raise EdgeError(f"{file}: [task] bundle and [data] say what is dealt out")
    _, bundle = load_bundle(settings.task.bundle)
    dealt = deal_out(settings.data, device_ids(settings), bundle.manifest)
    dealt.write(folder)
    print(dealt.how)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} DEPLOYMENT.toml FOLDER")
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except EdgeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
