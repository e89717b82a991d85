"""For every test: hypothesis without deadlines, because the machine that runs it may be busy; and the options of the soak."""

import pytest
from hypothesis import settings

settings.register_profile("edgemw", deadline=None)
settings.load_profile("edgemw")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `tests/system/test_soak.py`, here because pytest asks nobody further down in time."""
    group = parser.getgroup("soak")
    group.addoption("--kills", type=int, default=20, metavar="N", help="how many processes the soak kills (default: 20)")
    group.addoption("--storm", type=int, default=0, metavar="SEED", help="seed of what the soak does (default: 0)")
