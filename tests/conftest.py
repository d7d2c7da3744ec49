"""Settings of the whole suite."""

from hypothesis import settings

# The same examples in every run, whatever the speed of the machine, and no files left behind.
settings.register_profile("suite", deadline=None, max_examples=20, derandomize=True, database=None)
settings.load_profile("suite")
