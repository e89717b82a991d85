"""What import-linter does not see: which libraries a fresh interpreter really loads, and that the public names exist."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgemw

PACKAGE = Path(edgemw.__file__).parent
LEARNING = {"torch", "onnxruntime", "onnx", "onnxscript", "sklearn", "scipy", "pandas", "pyarrow"}
AUTHOR = {"torch", "onnx", "onnxscript"}
EXPERIMENT = {"sklearn", "scipy", "matplotlib", "pandas", "pyarrow", "amqtt", "cryptography"}
RUN_DEVICE = (
    "import edgemw.cli.device, edgemw.app.wiring, edgemw.serving.session, edgemw.serving.api, edgemw.learning.onnx_oracle"
)


def loaded_by(code: str) -> set[str]:
    """Top-level modules after running code in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("code", "needed", "forbidden"),
    [
        ("import edgemw", set(), {"numpy", "torch", "paho", "msgpack", *LEARNING}),
        ("import edgemw.cli.main", set(), {"matplotlib", "amqtt", *LEARNING}),
        ("from edgemw.cli.main import parser; parser()", set(), {"cryptography", "matplotlib", "amqtt", *LEARNING}),
        ("import edgemw.fog.agent", {"numpy", "msgpack"}, {"matplotlib", "amqtt", "cryptography", *LEARNING}),
        ("import edgemw.cli.fog, edgemw.app.wiring", {"numpy", "paho"}, {"matplotlib", "amqtt", "cryptography", *LEARNING}),
        ("import edgemw.cli.device, edgemw.app.wiring", {"numpy", "paho"}, {*AUTHOR, *EXPERIMENT}),
        (RUN_DEVICE, {"numpy", "onnxruntime"}, {*AUTHOR, *EXPERIMENT}),
        ("import edgemw.wire.messages, edgemw.wire.incoming", {"msgpack"}, {"numpy", "asyncio", "socket"}),
        ("import edgemw.transport.mqtt", {"paho"}, {"numpy", *LEARNING}),
        ("import edgemw.learning.torch_oracle", {"numpy"}, {"torch"}),
        ("from edgemw import Predictor", {"onnxruntime"}, {*AUTHOR, *EXPERIMENT}),
    ],
)
def test_what_a_fresh_interpreter_loads(code: str, needed: set[str], forbidden: set[str]) -> None:
    loaded = loaded_by(code)
    assert loaded >= needed
    assert loaded & forbidden == set()


def test_a_node_opens_a_bundle_without_torch() -> None:
    bundle = PACKAGE.parent / "examples" / "quickstart" / "digits.edge"
    code = (
        "from pathlib import Path\nfrom edgemw.app.wiring import open_oracle\nfrom edgemw.core.bundle import read_bundle\n"
        f"open_oracle(read_bundle(Path({str(bundle)!r}).read_bytes()), 1)"
    )
    assert loaded_by(code) & {*AUTHOR, *EXPERIMENT} == set()


def test_public_names_resolve() -> None:
    assert "__version__" in edgemw.__all__
    for name in edgemw.__all__:
        assert getattr(edgemw, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Tasks'"):
        _ = edgemw.Tasks


def test_packages_speak_through_their_modules() -> None:
    inits = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)
    assert len(inits) > 10
    assert [str(path.relative_to(PACKAGE)) for path in inits if path.read_text().strip()] == []


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
