"""Codecs of other distributions, in fresh interpreters that find them as an installation would leave them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgemw

ROOT = Path(edgemw.__file__).parents[1]
PLUGIN = """
from edgemw.compression.dense import Dense
from edgemw.core.errors import CodecError

class Twice(Dense):
    name = "twice"

    def __init__(self, dtype="float32", factor=2):
        if factor != 2:
            raise CodecError("twice is two times")
        super().__init__(dtype)

class Forgetful(Dense):
    name = "forgetful"

    def merge(self, payloads, size):
        return super().merge(payloads[:1], size)

def broken():
    raise KeyError("no such table")

def other():
    return Dense()

class Bare:
    name, merging, stepped = "bare", "growth", False
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "plugged.py").write_text(PLUGIN)
    return tmp_path


def offer(site: Path, distribution: str, **codecs: str) -> None:
    """A distribution as it stands in site-packages."""
    info = site / f"{distribution.replace('-', '_')}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    lines = [f"{name} = {place}" for name, place in codecs.items()]
    (info / "entry_points.txt").write_text("\n".join(["[edgemw.codecs]", *lines, ""]))


def python(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": f"{site}:{ROOT}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=250, check=False)


def asked(site: Path, call: str) -> str:
    """What a call on the table returns, or the error that it ends with."""
    code = "from edgemw.compression.table import codec_named, codec_names\nfrom edgemw.core.errors import EdgeError\n"
    code += f"try:\n    print({call})\nexcept EdgeError as error:\n    print(type(error).__name__, error)"
    done = python(site, "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_installed_codec_is_found_by_name(site: Path) -> None:
    offer(site, "edge-twice", twice="plugged:Twice")
    assert asked(site, "codec_named('twice').name") == "twice"
    encode = "codec_named('twice', dtype='float16', factor=2).encode"
    assert asked(site, f"len({encode}(__import__('numpy').zeros(4, 'f4'), 0.0))") == "13"
    assert asked(site, "codec_names()[-2:]") == "('powersgd', 'twice')"
    assert asked(site, "codec_named('gzip')").endswith("known: lattice, lanes, dense, topk, qsgd, signsgd, powersgd, twice")


def test_it_is_imported_only_when_it_is_asked_for(site: Path) -> None:
    offer(site, "edge-twice", twice="plugged:Twice", missing="nowhere:Codec")
    loaded = "'plugged' in __import__('sys').modules"
    assert asked(site, f"codec_names()[-1], codec_named('dense').name, {loaded}") == "twice dense False"
    assert asked(site, f"codec_named('twice').name, {loaded}") == "twice True"


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ("nowhere:Codec", "codec 'bad' of edge-bad 1.5 does not load: ModuleNotFoundError"),
        ("plugged:Nothing", "codec 'bad' of edge-bad 1.5 does not load: AttributeError"),
        ("plugged:broken", "codec 'bad' of edge-bad 1.5 does not load: KeyError('no such table')"),
        ("plugged:other", "codec 'bad' of edge-bad 1.5 does not keep the protocol"),
        ("plugged:Bare", "codec 'bad' of edge-bad 1.5 does not keep the protocol"),
        ("plugged:PLUGIN", "codec 'bad' of edge-bad 1.5 does not load"),
    ],
)
def test_a_codec_that_cannot_be_used_names_its_distribution(site: Path, place: str, what: str) -> None:
    offer(site, "edge-bad", bad=place)
    assert asked(site, "codec_named('bad')").startswith(f"CodecError {what}")


def test_its_own_refusal_of_a_parameter_is_passed_on(site: Path) -> None:
    offer(site, "edge-twice", twice="plugged:Twice")
    assert asked(site, "codec_named('twice', factor=3)") == "CodecError twice is two times"
    assert "no parameter 'k'; its parameters: dtype, factor" in asked(site, "codec_named('twice', k=1)")


def test_nobody_takes_the_name_of_a_built_in_codec(site: Path) -> None:
    offer(site, "edge-bad", topk="plugged:Twice")
    assert asked(site, "type(codec_named('topk')).__name__") == "TopK"
    assert asked(site, "codec_names()") == "CodecError edge-bad 1.5 offers a codec 'topk', which is the name of a built-in one"


def test_a_name_that_two_distributions_offer_is_nobodys(site: Path) -> None:
    offer(site, "edge-one", twice="plugged:Twice")
    offer(site, "edge-two", twice="plugged:Twice")
    assert asked(site, "codec_named('twice')") == "CodecError codec 'twice' is offered by edge-one 1.5 and edge-two 1.5"


def conformance(site: Path, *arguments: str) -> tuple[int, str]:
    """The suite as somebody else runs it; where edgemw is installed, pytest finds the option by itself."""
    options = ["-p", "edgemw.conformance.options", "-p", "no:cacheprovider", "-q", "--tb=line"]
    done = python(site, "-m", "pytest", *options, "--pyargs", "edgemw.conformance", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_the_published_suite_passes_a_sound_codec_and_finds_a_broken_one(site: Path) -> None:
    offer(site, "edge-twice", twice="plugged:Twice", forgetful="plugged:Forgetful")
    code, text = conformance(site, "--codec", "twice", "--codec", "signsgd")
    assert code == 0, text
    code, text = conformance(site, "--codec", "forgetful", "-k", "adds or commutes")
    assert code == 1, text
    assert "AssertionError" in text


def test_the_published_suite_is_about_all_codecs_unless_told(site: Path) -> None:
    offer(site, "edge-twice", twice="plugged:Twice")
    code, text = conformance(site, "--collect-only")
    assert code == 0, text
    assert all(f"[{name}" in text or f"-{name}" in text for name in ("lattice", "topk", "powersgd", "twice"))
    offer(site, "edge-bad", topk="plugged:Twice")
    code, text = conformance(site, "--collect-only")
    assert code != 0
    assert "edge-bad 1.5 offers a codec 'topk'" in text


def test_the_published_suite_refuses_a_name_that_is_no_codec(site: Path) -> None:
    code, text = conformance(site, "--codec", "nope")
    assert code == 2, text
    assert "no codec 'nope'; known: " in text
    assert "Traceback" not in text
