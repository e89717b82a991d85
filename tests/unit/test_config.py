"""The loader: types, bounds, lines, precedence, origins."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from edgemw.core.config.explain import explain
from edgemw.core.config.loader import Loaded, leaves, load
from edgemw.core.config.schema import option, required, schema_keys, section
from edgemw.core.config.secret import Secret
from edgemw.core.config.tree import MAX_TEXT_CHARS, Source
from edgemw.core.config.units import Duration, Size, duration, size
from edgemw.core.errors import ConfigError

CWD = Path("/home/me")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    k: int | Literal["all"] = option("all", help="updates", min=1)
    deadline: Duration = option(duration("30s"), help="end", min=1, max=3600)
    ratio: float = option(0.5, help="part", above=0, below=1)

    def __post_init__(self) -> None:
        if self.k == 13:
            raise ConfigError("brings bad luck", key="k")
        if self.k == 14:
            raise ConfigError("is bad as a whole")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    path: Path = required(help="where")
    tags: tuple[str, ...] = option((), help="words")
    select: dict[str, int | float | str] = option({}, help="rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    count: int = option(1, help="how many", min=1)
    window: Window = section(Window, help="window", inherit=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    name: str = required(help="who", example='"x"')
    fast: bool = option(False, help="hurry")
    limit: Size = option(size("1KiB"), help="bytes", min=1)
    budget: Size | None = option(None, help="bytes, if any", min=1)
    level: Literal["low", "high"] = option("low", help="level")
    nick: str | None = option(None, help="other name")
    password: Secret | None = option(None, help="secret")
    home: Path = option(Path("state"), help="folder")
    window: Window = section(Window, help="window", ratio=0.25)
    items: tuple[Item, ...] = option((), help="items")
    groups: dict[str, Group] = option({}, help="groups")


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    elsewhere: int = option(1, help="a key of another kind of file")


def loaded(text: str, **more: object) -> Loaded[Settings]:
    return load(Settings, text, "/etc/app/a.toml", cwd=CWD, **more)  # type: ignore[arg-type]  # passed through


def refused(text: str, **more: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        loaded(text, **more)
    return caught.value


def test_every_type_is_read() -> None:
    text = """
name = "n"
fast = true
limit = "2kB"
level = "high"
nick = "m"
password = { file = "pass" }
home = "../h"
window = { k = 3, deadline = "1.5s", ratio = 0.75 }
items = [ { path = "/x" } ]
[groups.a]
count = 2
"""
    value = loaded(text).value
    assert value == Settings(
        name="n",
        fast=True,
        limit=Size(2000),
        level="high",
        nick="m",
        password=Secret(file="pass", beside="/etc/app"),
        home=Path("/etc/h"),
        window=Window(k=3, deadline=Duration(1.5), ratio=0.75),
        items=(Item(path=Path("/x")),),
        groups={"a": Group(count=2, window=Window(k=3, deadline=Duration(1.5), ratio=0.75))},
    )


def test_defaults_fill_the_rest_and_relative_default_paths_belong_to_the_file() -> None:
    value = loaded('name = "n"').value
    assert value.window == Window(ratio=0.25)
    assert value.home == Path("/etc/app/state")
    assert loaded('name = "n"\n[window]\nk = 2').value.window == Window(k=2, ratio=0.25)


@pytest.mark.parametrize(
    ("text", "line", "key", "reason"),
    [
        ("", 1, "name", 'is missing: who ("x")'),
        ("name = 3", 1, "name", 'expected a string, for example "x", found 3'),
        ('name = "n"\nfast = "yes"', 2, "fast", 'expected true or false, found "yes"'),
        ('name = "n"\n\n[window]\nk = true', 4, "window.k", 'expected a whole number or "all", found true'),
        ('name = "n"\nwindow.k = 0', 2, "window.k", "must be at least 1, found 0"),
        ('name = "n"\n[window]\ndeadline = 30', 3, "window.deadline", 'expected a duration such as "30s", found 30'),
        ('name = "n"\n[window]\ndeadline = "2h"', 3, "window.deadline", 'must be at most 1h, found "2h"'),
        ('name = "n"\nwindow = { ratio = 1 }', 2, "window.ratio", "must be less than 1, found 1"),
        ('name = "n"\nwindow = { ratio = nan }', 2, "window.ratio", "must be a finite number"),
        ('name = "n"\nlimit = "1.5B"', 2, "limit", 'expected a size such as "256KiB", found "1.5B"'),
        ('name = "n"\nlimit = 99999999999999999999', 2, "limit", "is a larger number than fits in 64 bits"),
        ('name = "n"\nlevel = "hihg"', 2, "level", 'expected "low" or "high", found "hihg"; did you mean \'high\'?'),
        ('name = "n"\nwindow = 3', 2, "window", "expected a table, found 3"),
        ('name = "n"\n[[items]]\npath = "a"\n[[items]]\ntags = []', 4, "items.1.path", "is missing: where (a path)"),
        ('name = "n"\n[[items]]\npath = "a"\ntags = ["a",\n  1]', 5, "items.0.tags.1", "expected a string, found 1"),
        ('name = "n"\n[[items]]\npath = "a"\nselect = { "c d" = [] }', 4, "items.0.select.c d", "found a list"),
        ('name = "n"\nhome = ""', 2, "home", 'expected a path, found ""'),
        ('name = "n"\n[window]\nk = 13', 3, "window.k", "brings bad luck"),
        ('name = "n"\n[window]\nk = 14', 2, "window", "is bad as a whole"),
        ('name = "n"\nname = "m"', 2, None, "not TOML: cannot overwrite a value"),
        ('name = "n', 1, None, "not TOML"),
        ("name = \n[window]\n", 1, None, "not TOML: invalid value"),
        (f"name = {'9' * 5000}", 1, None, "not TOML"),
        (f"name = {'[' * 100_000}", None, None, "not TOML"),
        ("#" * (MAX_TEXT_CHARS + 1), None, None, "at most"),
    ],
)
def test_a_refusal_names_file_line_and_key(text: str, line: int | None, key: str | None, reason: str) -> None:
    error = refused(text)
    assert (error.file, error.line, error.key) == ("/etc/app/a.toml", line, key)
    assert reason in error.reason


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("nmae = 1", "nmae", "name"),
        ('name = "n"\n[windw]\nk = 1', "windw", "window"),
        ('name = "n"\n[window]\ndedline = "1s"', "window.dedline", "deadline"),
        ('name = "n"\nratio = 0.1', "ratio", "window.ratio"),
        ('name = "n"\n[groups.a]\ncuont = 1', "groups.a.cuont", "count"),
        ('name = "n"\nzzz = 0.1', "zzz", None),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_name(text: str, key: str, suggestion: str | None) -> None:
    error = refused(text)
    assert (error.key, error.suggestion, error.reason) == (key, suggestion, "unknown key")


def test_all_unknown_keys_are_told_at_once_before_anything_else() -> None:
    text = """
nmae = "n"
[window]
dedline = "1s"
k = 0
[groups.a]
cuont = 1
[[items]]
pth = "/x"
"""
    error = refused(text)
    assert (error.line, error.key) == (2, "nmae")
    assert str(error) == (
        "/etc/app/a.toml:2: nmae: unknown key (did you mean 'name'?); "
        "/etc/app/a.toml:4: window.dedline: unknown key (did you mean 'deadline'?); "
        "/etc/app/a.toml:7: groups.a.cuont: unknown key (did you mean 'count'?); "
        "/etc/app/a.toml:9: items.0.pth: unknown key (did you mean 'path'?)"
    )


def test_a_file_of_another_kind_is_refused_in_a_few_words() -> None:
    error = refused("\n".join(f"strange-{n} = 1" for n in range(500)))
    assert len(str(error)) < 600
    assert str(error).endswith("; and 492 more")


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{ a = ", "}")])
def test_no_depth_of_nesting_is_too_much_for_an_error(opening: str, closing: str) -> None:
    for depth in range(100, 600, 3):
        assert refused(f"name = {opening * depth}1{closing * depth}").file == "/etc/app/a.toml"


def test_long_or_odd_values_are_shown_in_one_short_line() -> None:
    reason = refused(f'name = "n"\nfast = "a\\n\\u001b{"b" * 1000}"').reason
    assert len(reason) < 120
    assert reason.isprintable()


# -------------------------------------------------------------------------------------------------------------- precedence


def test_flag_over_environment_over_file_over_the_file_under_it_over_default() -> None:
    under = Source('name = "under"\nnick = "under"\n[window]\nk = 1\nratio = 0.1\n', "/etc/app/b.toml")
    text = 'name = "n"\n[window]\nk = 2\ndeadline = "2s"\n'
    found = loaded(
        text,
        under=[under],
        env={"EDGEMW_WINDOW__K": "3", "EDGEMW_WINDOW__DEADLINE": "3s", "PATH": "/bin"},
        overrides=["window.k=4", "window.k=5"],
    )
    assert found.value.window == Window(k=5, deadline=Duration(3), ratio=0.1)
    assert (found.value.name, found.value.nick) == ("n", "under")
    assert found.origin("window.k") == "flag"
    assert found.origin("window.deadline") == "environment EDGEMW_WINDOW__DEADLINE"
    assert found.origin("window.ratio") == "/etc/app/b.toml:5"
    assert found.origin("name") == "/etc/app/a.toml:1"
    assert found.origin("level") == "default"


def test_a_secret_and_a_list_are_replaced_as_a_whole() -> None:
    under = Source('password = { env = "A" }\nitems = [{ path = "/a" }, { path = "/b" }]', "b.toml")
    value = loaded('name = "n"\npassword = { file = "/p" }\nitems = [{ path = "/c" }]', under=[under]).value
    assert value.password == Secret(file="/p", beside="/etc/app")
    assert [item.path for item in value.items] == [Path("/c")]


def test_a_section_inherits_key_by_key_with_the_origin() -> None:
    found = loaded('name = "n"\n[window]\nk = 2\nratio = 0.3\n[groups.a.window]\nk = 3\n')
    assert found.value.groups["a"].window == Window(k=3, ratio=0.3)
    assert found.origin("groups.a.window.ratio") == "/etc/app/a.toml:4"
    assert found.origin("groups.a.window.k") == "/etc/app/a.toml:6"


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("EDGEMW_NAME", "007", "name", "007"),
        ("EDGEMW_FAST", "true", "fast", True),
        ("EDGEMW_LIMIT", "1kB", "limit", 1000),
        ("EDGEMW_LEVEL", "high", "level", "high"),
        ("EDGEMW_WINDOW__K", "all", "window.k", "all"),
        ("EDGEMW_WINDOW__RATIO", "1e-3", "window.ratio", 0.001),
        ("EDGEMW_NICK", "v = 1\nname = 2", "nick", "v = 1\nname = 2"),
        ("EDGEMW_HOME", "/srv", "home", Path("/srv")),
        ("EDGEMW_PASSWORD", '{ env = "X" }', "password", Secret(env="X")),
        ("EDGEMW_GROUPS__A__COUNT", "7", "groups.a.count", 7),
        ("EDGEMW_ITEMS__0__TAGS", '["a", "b"]', "items.0.tags", ("a", "b")),
    ],
)
def test_the_environment_gives_text_of_any_type(name: str, text: str, key: str, value: object) -> None:
    found = loaded('name = "n"\n[[items]]\npath = "/x"', env={name: text})
    assert dict(leaves(found.value))[key] == value
    assert found.origin(key) == f"environment {name}"


def test_paths_from_outside_the_file_are_relative_to_the_working_directory() -> None:
    assert loaded('name = "n"', overrides=["home=h"]).value.home == CWD / "h"
    assert loaded('name = "n"', env={"EDGEMW_HOME": "h"}).value.home == CWD / "h"


def test_a_relative_file_stands_in_the_working_directory() -> None:
    value = load(Settings, 'name = "n"\npassword = { file = "p" }', "app/a.toml", cwd=CWD).value
    assert (value.home, value.password) == (CWD / "app/state", Secret(file="p", beside=str(CWD / "app")))


def test_a_flag_may_add_one_element_to_a_list() -> None:
    assert loaded('name = "n"', overrides=["items.0.path=/x"]).value.items == (Item(path=Path("/x")),)
    assert "too far" in refused('name = "n"', overrides=["items.1.path=/x"]).reason


def test_unknown_names_outside_the_file_are_errors_too() -> None:
    error = refused('name = "n"', env={"EDGEMW_WINDOW__DEDLINE": "1s"})
    assert (error.key, error.suggestion) == ("EDGEMW_WINDOW__DEDLINE", "EDGEMW_WINDOW__DEADLINE")
    error = refused('name = "n"', overrides=["window.dedline=1s"])
    assert (error.key, error.suggestion) == ("window.dedline", "window.deadline")
    assert "KEY=VALUE" in refused('name = "n"', overrides=["window.k"]).reason


def test_reserved_names_and_names_of_other_files_are_left_alone() -> None:
    env = {"EDGEMW_CONFIG": "x", "EDGEMW_SECRET_A": "x", "EDGEMW_ELSEWHERE": "2"}
    assert loaded('name = "n"', env=env, also=[Other]).value.name == "n"
    assert refused('name = "n"', env=env).key == "EDGEMW_ELSEWHERE"


def test_a_refused_value_from_outside_says_where_it_came_from() -> None:
    assert refused('name = "n"', env={"EDGEMW_WINDOW__K": "0"}).file == "environment EDGEMW_WINDOW__K"
    assert refused('name = "n"', overrides=["window.k=0"]).file == "flag"


# ----------------------------------------------------------------------------------------------------------------- explain


def test_explain_says_everything_about_a_key() -> None:
    found = loaded('name = "n"\n[groups.a]\nwindow.deadline = "2s"')
    told = explain(Settings, found, "groups.a.window.deadline")
    assert (told.value, told.origin, told.env) == (2.0, "/etc/app/a.toml:3", "EDGEMW_GROUPS__A__WINDOW__DEADLINE")
    assert (told.about.option.help, told.about.bounds, told.about.default) == ("end", "at least 1s, at most 1h", 30.0)
    assert explain(Settings, found, "window.ratio").about.default == 0.25


@pytest.mark.parametrize("key", ["windw.k", "window", "groups.b.count", "items.0.path", ""])
def test_explain_refuses_what_is_no_key(key: str) -> None:
    with pytest.raises(ConfigError):
        explain(Settings, loaded('name = "n"'), key)


def test_origin_refuses_what_is_no_key() -> None:
    with pytest.raises(ConfigError, match="no such setting"):
        loaded('name = "n"').origin("nmae")


def test_schema_keys_open_all_sections() -> None:
    paths = [key.path for key in schema_keys(Settings)]
    assert {"name", "window.k", "items.N.path", "groups.NAME.window.k"} <= set(paths)
    assert "window" not in paths


# ----------------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "text",
    [
        '"hunter2"',
        '{ file = "a", env = "hunter2" }',
        "{ }",
        "{ file = 3 }",
        '{ value = "hunter2" }',
        '{ env = "EDGEMW_HUNTER2" }',
        '{ file = "" }',
    ],
)
def test_a_secret_is_a_reference_and_what_else_stands_there_is_not_repeated(text: str) -> None:
    error = refused(f'name = "n"\npassword = {text}')
    assert error.line == 2
    assert "hunter2" not in str(error)


def test_a_secret_in_the_environment_itself_is_refused_without_being_shown() -> None:
    assert "hunter2" not in str(refused('name = "n"', env={"EDGEMW_PASSWORD": "hunter2"}))


@runs(deadline=None)  # the machine may be busy
@given(st.text(max_size=60) | st.text("[]{}=.\"'#\n a1\\,", max_size=60))
def test_any_text_loads_or_is_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        loaded(text)


def test_a_flag_or_a_variable_without_a_value_takes_an_optional_one_away() -> None:
    text = 'name = "n"\nbudget = "2kB"\nnick = "m"\n'
    assert loaded(text).value.budget == 2000
    assert loaded(text, overrides=["budget="]).value.budget is None
    assert loaded(text, overrides=["nick="]).value.nick == ""
    assert "expected a size" in str(refused(text, overrides=["limit="]))
    assert "expected a size" in str(refused('name = "n"\nbudget = ""\n'))
