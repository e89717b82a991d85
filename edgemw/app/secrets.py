"""Reading secrets: the settings only say where they stand.

A relative file is looked for in $CREDENTIALS_DIRECTORY (systemd's `LoadCredential=`), then in /run/secrets, then beside the
configuration file that names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgemw.core.config.loader import leaves
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError

MAX_SECRET_BYTES = 1 << 16
CREDENTIAL_FOLDERS = ("/run/secrets",)


def reveal(secret: Secret, env: Mapping[str, str]) -> str:
    """The secret itself, without a final newline.

    Raises:
        ConfigError: it is not there, is empty, is not text, or is larger than 64 KiB.
    """
    value = _from_env(secret.env, env) if secret.env is not None else _from_file(secret, env)
    if not value:
        raise ConfigError(f"the secret in {secret.env or secret.file!r} is empty")
    return value


def candidates(secret: Secret, env: Mapping[str, str]) -> tuple[Path, ...]:
    """The files that may hold it, in the order in which they are tried."""
    if secret.file is None:
        return ()
    folders = (env.get("CREDENTIALS_DIRECTORY"), *CREDENTIAL_FOLDERS, secret.beside)
    return tuple(dict.fromkeys(Path(folder) / secret.file for folder in folders if folder))


def secret_warnings(settings: object, env: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each secret of the settings that cannot be found, or whose file others than its owner can read."""
    problems = ((key, _problem(value, env)) for key, value in leaves(settings) if isinstance(value, Secret))
    return tuple(f"{key}: {problem}" for key, problem in problems if problem)


def is_here(secret: Secret, env: Mapping[str, str]) -> bool:
    """Whether a secret can be found."""
    return secret.env in env if secret.env is not None else _found(secret, env) is not None


def private_file_problem(path: Path) -> str:
    """Why a file that only its owner may read is not safe; empty when it is."""
    return f"{path} can be read by others than its owner: chmod 600 {path}" if path.stat().st_mode & 0o077 else ""


def _problem(secret: Secret, env: Mapping[str, str]) -> str:
    if secret.env is not None:
        return "" if secret.env in env else f"the environment variable {secret.env} is not set"
    path = _found(secret, env)
    if path is None:
        return f"no file {secret.file!r} in {', '.join(str(tried.parent) for tried in candidates(secret, env))}"
    return private_file_problem(path)


def _found(secret: Secret, env: Mapping[str, str]) -> Path | None:
    return next((path for path in candidates(secret, env) if path.is_file()), None)


def _from_env(name: str, env: Mapping[str, str]) -> str:
    if name not in env:
        raise ConfigError(f"the environment variable {name} that holds a secret is not set")
    return env[name]


def _from_file(secret: Secret, env: Mapping[str, str]) -> str:
    path = _found(secret, env)
    if path is None:
        raise ConfigError(f"no secret file {secret.file!r}; looked for {', '.join(map(str, candidates(secret, env)))}")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the secret cannot be read: {error.strerror or error}", file=str(path)) from error
    if len(data) > MAX_SECRET_BYTES:
        raise ConfigError(f"a secret has at most {MAX_SECRET_BYTES} bytes", file=str(path))
    try:
        return data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ConfigError("the secret is not UTF-8 text", file=str(path)) from error
