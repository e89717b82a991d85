"""Secrets: where they are looked for, how they are read, and who else can read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemw.app.secrets import candidates, reveal, secret_warnings
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Settings:
    password: Secret


def test_a_secret_file_is_looked_for_in_order(tmp_path: Path) -> None:
    credentials, beside = tmp_path / "credentials", tmp_path / "beside"
    for folder, text in ((credentials, "first"), (beside, "last")):
        folder.mkdir()
        (folder / "pass").write_text(f"{text}\n")
    secret = Secret(file="pass", beside=str(beside))
    assert reveal(secret, {"CREDENTIALS_DIRECTORY": str(credentials)}) == "first"
    assert reveal(secret, {}) == "last"
    assert reveal(Secret(file=str(beside / "pass"), beside="/x"), {"CREDENTIALS_DIRECTORY": str(credentials)}) == "last"
    assert reveal(Secret(env="P"), {"P": "from env"}) == "from env"
    assert candidates(secret, {})[0] == Path("/run/secrets/pass")
    assert candidates(Secret(env="P"), {}) == ()


def test_a_secret_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for name, data in (("empty", b"\n"), ("large", b"x" * 70_000), ("binary", b"\xff")):
        (tmp_path / name).write_bytes(data)
    for secret in [Secret(env="P"), *(Secret(file=name, beside=str(tmp_path)) for name in ("none", "empty", "large", "binary"))]:
        with pytest.raises(ConfigError):
            reveal(secret, {})


def test_repr_shows_no_more_than_where_it_stands() -> None:
    assert repr(Secret(env="PASS")) == "Secret(env=PASS, value=***)"


def test_others_who_can_read_a_secret_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "pass"
    path.write_text("x")
    settings = Settings(Secret(file=str(path), beside="/"))
    path.chmod(0o640)
    assert "chmod 600" in secret_warnings(settings, {})[0]
    path.chmod(0o600)
    assert secret_warnings(settings, {}) == ()
    path.unlink()
    assert "no file" in secret_warnings(settings, {})[0]
    assert "not set" in secret_warnings(Settings(Secret(env="P")), {})[0]
