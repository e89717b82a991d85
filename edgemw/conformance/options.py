"""The option of the conformance suite.

A plugin of pytest, because options of a conftest.py inside a package that is named by `--pyargs` come too late.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --codec."""
    parser.getgroup("edgemw").addoption(
        "--codec",
        action="append",
        dest="edgemw_codecs",
        metavar="NAME",
        help="a codec that edgemw.conformance is about, built in or installed; may be repeated; default: all of them",
    )
