"""Settings of all tests."""

import os
import signal

# As many test processes run as there are cores: more threads would only stand in each other's way. Torch reads it when
# it is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis

hypothesis.settings.register_profile("metarl", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("metarl")

# A shell that starts a job in the background lets it ignore Ctrl-C, and children inherit that: here it counts.
signal.signal(signal.SIGINT, signal.default_int_handler)
