"""Reads a Dockerfile: its stages, and what an image of one of them is started with. No engine is needed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word in capitals, and the rest with continued lines joined."""

    word: str
    text: str
    line: int

    def list(self) -> list[str] | None:
        """The words of the exec form, None for the shell form."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, list) else None


@dataclass(frozen=True)
class Stage:
    """From FROM to the next: `base` is a stage or an image."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def texts(self, word: str) -> list[str]:
        return [each.text for each in self.instructions if each.word == word]


@dataclass(frozen=True)
class Image:
    """What containers of a stage are started with."""

    env: Mapping[str, str]
    user: str
    entrypoint: list[str]
    command: list[str]
    health: list[str]
    volumes: list[str]
    folder: str = "/"


def instructions(text: str) -> Iterator[Instruction]:
    """Every instruction of a Dockerfile, without comments."""
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or held):
            continue
        begun = begun or number
        held += line.removesuffix("\\")
        if not line.endswith("\\"):
            word, _, rest = held.strip().partition(" ")
            yield Instruction(word.upper(), rest.strip(), begun)
            held, begun = "", 0
    assert not held, f"the last line goes on: {held}"


def stages(text: str) -> dict[str, Stage]:
    """The stages by name, in order; arguments in FROM have their defaults."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for each in instructions(text):
        if each.word == "FROM":
            match = re.fullmatch(r"(\S+) AS (\S+)", Template(each.text).substitute(arguments))
            assert match, f"line {each.line}: FROM without a name"
            name = match[2]
            found[name] = Stage(name, match[1], ())
        elif found:
            found[name] = Stage(name, found[name].base, (*found[name].instructions, each))
        else:
            assert each.word == "ARG", f"line {each.line}: {each.word} before FROM"
            key, _, value = each.text.partition("=")
            arguments[key] = value
    return found


def lineage(known: Mapping[str, Stage], name: str) -> list[Stage]:
    """A stage after those that it is made from."""
    stage = known[name]
    return [*(lineage(known, stage.base) if stage.base in known else []), stage]


def environment(lines: list[Stage]) -> dict[str, str]:
    """What ENV and ARG have set at the end of a lineage."""
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    scope: dict[str, str] = {}
    for stage in lines:
        for each in stage.instructions:
            if each.word in ("ENV", "ARG"):
                for assignment in shlex.split(each.text):
                    key, _, value = assignment.partition("=")
                    scope[key] = Template(value).safe_substitute(scope | env)
                    if each.word == "ENV":
                        env[key] = scope[key]
    return env


def folder(lines: list[Stage]) -> str:
    """What WORKDIR has said last."""
    return "".join([text for stage in lines for text in stage.texts("WORKDIR")][-1:]) or "/"


def image(known: Mapping[str, Stage], name: str) -> Image:
    """What a container of a stage is started with."""
    lines = lineage(known, name)
    last: dict[str, Any] = {"USER": "0:0", "HEALTHCHECK": []}
    volumes: list[str] = []
    for each in (each for stage in lines for each in stage.instructions):
        if each.word == "HEALTHCHECK":
            last[each.word] = [] if each.text == "NONE" else json.loads(each.text.partition(" CMD ")[2])
        elif each.word == "VOLUME":
            volumes += each.list() or []
        else:
            last[each.word] = each.list() or each.text
    commands = [last.get(word) or [] for word in ("ENTRYPOINT", "CMD")]
    return Image(environment(lines), last["USER"], commands[0], commands[1], last["HEALTHCHECK"], volumes, folder(lines))
