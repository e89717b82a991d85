"""Builds the images of docker/Dockerfile where there is no Docker: each stage in a folder, by debootstrap and chroot, as root.

`python -m tests.support.images FOLDER TARGET ...` leaves FOLDER/TARGET and says how large it is. Settings of pip and of proxies
are passed on; `--bind PATH` shows a folder of this machine, read-only, to the commands of a build.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.support.dockerfile import Stage, environment, lineage, stages
from tests.support.dockerfile import folder as folder_of

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")


def command(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)


def base(folder: Path) -> Path:
    """A bare Debian, made once; Docker's slim one has no documentation and languages either."""
    path = folder / "debian"
    if not path.exists():
        command("debootstrap", "--variant=minbase", SUITE, path)
        for waste in (
            "usr/share/doc",
            "usr/share/man",
            "usr/share/locale",
            "usr/share/info",
            "var/cache/apt",
            "var/lib/apt/lists",
        ):
            shutil.rmtree(path / waste, ignore_errors=True)
            (path / waste).mkdir()
        lines = [f"path-exclude /usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
        (path / "etc/dpkg/dpkg.cfg.d/slim").write_text("\n".join(lines) + "\n")
        security = f"deb http://deb.debian.org/debian-security {SUITE}-security main\n"
        (path / "etc/apt/sources.list.d/security.list").write_text(security)
    return path


def build(folder: Path, name: str, binds: list[str]) -> Path:
    """The folder of a stage, with those that it needs; one that is there already stays."""
    known = stages((ROOT / "docker/Dockerfile").read_text())
    stage, path = known[name], folder / name
    if path.exists():
        return path
    below = build(folder, stage.base, binds) if stage.base in known else base(folder)
    making = folder / f"{name}.making"
    shutil.rmtree(making, ignore_errors=True)
    command("cp", "-a", "--reflink=auto", below, making)
    ancestors = lineage(known, name)[:-1]
    for number, each in enumerate(stage.instructions):
        before = [*ancestors, Stage(name, stage.base, stage.instructions[:number])]
        place = making / folder_of(before).lstrip("/")
        if each.word == "COPY":
            _copy(folder, shlex.split(each.text), place, making, binds)
        elif each.word == "RUN":
            place.mkdir(parents=True, exist_ok=True)
            _run(making, folder_of(before), each.text, environment(before), binds)
    making.rename(path)
    return path


def _copy(folder: Path, words: list[str], place: Path, making: Path, binds: list[str]) -> None:
    source = ROOT
    if words[0].startswith("--from="):
        source = build(folder, words.pop(0).removeprefix("--from="), binds)
    *names, last = words
    target = making / last[1:] if last.startswith("/") else place / last
    (target if last.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
    for name in names:
        found = source / name.lstrip("/")
        if found.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so") if source == ROOT else None
            shutil.copytree(found, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(found, target)


def _run(making: Path, workdir: str, text: str, env: dict[str, str], binds: list[str]) -> None:
    """One RUN, with /proc, the network and these folders of this machine, in a mount namespace of its own."""
    passed = {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON) and key not in env}
    shutil.copy("/etc/resolv.conf", making / "etc/resolv.conf")
    (making / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (making / "usr/sbin/policy-rc.d").chmod(0o755)
    mounts = [f"mount -t proc proc {making}/proc"]
    for bind in binds:
        (making / bind[1:]).mkdir(parents=True, exist_ok=True)
        there = making / bind[1:]
        mounts += [f"mount --bind {shlex.quote(bind)} {there}", f"mount -o remount,bind,ro {there}"]
    inside = ["chroot", str(making), "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in (passed | env).items())]
    inside += ["/bin/sh", "-c", f"cd {workdir} && {text}"]
    print(f"--- {making.name}: {text}", flush=True)
    command("unshare", "--mount", "--fork", "/bin/sh", "-ec", "\n".join([*mounts, f"exec {shlex.join(inside)}"]))
    (making / "usr/sbin/policy-rc.d").unlink()


def main() -> None:
    """Build, and say how large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--bind", action="append", default=[], metavar="PATH")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for target in args.targets:
        command("du", "--summarize", "--block-size=MB", build(args.folder.resolve(), target, args.bind))


if __name__ == "__main__":
    main()
