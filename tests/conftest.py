"""For every test: hypothesis without deadlines, because the machine that runs it may be busy."""

from hypothesis import settings

settings.register_profile("edgemw", deadline=None)
settings.load_profile("edgemw")
