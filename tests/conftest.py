"""For every test: hypothesis without deadlines, because the machine that runs it may be busy; and the options of long tests."""

import pytest
from hypothesis import settings

settings.register_profile("edgemw", deadline=None)
settings.load_profile("edgemw")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of `tests/system`, here because pytest asks nobody further down in time."""
    group = parser.getgroup("soak")
    group.addoption("--kills", type=int, default=20, metavar="N", help="how many processes the soak kills (default: 20)")
    group.addoption("--storm", type=int, default=0, metavar="SEED", help="seed of what the soak does (default: 0)")
    group.addoption("--frames", type=int, default=20_000, metavar="N", help="damaged frames to decoders (default: 20000)")
    group = parser.getgroup("compose")
    group.addoption("--images", metavar="FOLDER", help="images of tests.support.images to run docker/compose.yaml in")
    group = parser.getgroup("doors")
    group.addoption("--door-cases", type=int, default=2000, metavar="N", help="damaged requests to the doors (default: 2000)")
    group.addoption("--door-seed", type=int, default=0, metavar="SEED", help="seed of the damage (default: 0)")
    group.addoption("--door-case", type=int, default=None, metavar="N", help="only this one")
