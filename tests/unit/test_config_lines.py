"""The line of every key, whatever stands around it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import settings as runs
from hypothesis import strategies as st

from edgemw.core.config.lines import key_lines

LINES = (
    '# a comment with [brackets] and "quotes\n'
    'a = """\n'
    "x = 1 ]\n"
    '\\""" """""\n'
    "b.c = 'it'\n"
    "\n"
    '[t."d.e"] # comment\n'
    "f = [ 1, # one\n"
    "  { g = 1, h.i = [2] },\n"
    '  "]", ]\n'
    "[[u]]\n"
    "v = 1\n"
    "[[u.w]]\n"
    "z = '''\n"
    "[no]\n"
    "'''\n"
    "[u.x]\n"
    "y = 2\n"
    "[[u]]\n"
    "v = 1979-05-27T07:32:00Z\n"
)


def test_lines_of_every_kind_of_key() -> None:
    text = LINES
    lines = key_lines(text)
    assert lines[("a",)] == 2
    assert lines[("b", "c")] == 5
    assert lines[("t", "d.e")] == 7
    assert lines[("t", "d.e", "f", 1, "h", "i", 0)] == 9
    assert lines[("t", "d.e", "f", 2)] == 10
    assert lines[("u", 0, "v")] == 12
    assert lines[("u", 0, "w", 0, "z")] == 14
    assert lines[("u", 0, "x", "y")] == 18
    assert lines[("u", 1)] == 19
    assert lines[("u", 1, "v")] == 20


_KEYS = st.text("ab\"'.#[=\\é ", min_size=1, max_size=4)
_VALUES = st.sampled_from(
    ["1", '"]#\\""', "'''\n=[\n'''", '[1,\n 2, # c ]\n "}"]', '{ x = "}", y.z = [ ] }', "true", '"""\n\\""""', "1.5e3"]
)


@runs(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(_KEYS, _VALUES, st.sampled_from(["", " # [x]", "\n\n# a = 1"])), unique_by=lambda item: item[0]))
def test_lines_are_found_whatever_stands_around_them(items: list[tuple[str, str, str]]) -> None:
    text, expected = "", {}
    for key, value, after in items:
        quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
        expected[key] = text.count("\n") + 1
        text += f"{quoted} = {value}{after}\n"
    assert {path[0]: line for path, line in key_lines(text).items() if len(path) == 1} == expected
