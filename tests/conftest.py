"""Settings of all tests."""

import os
import signal

import hypothesis
import torch

hypothesis.settings.register_profile("metarl", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("metarl")

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: more threads would only stand in each other's way
    torch.set_num_threads(1)

# A shell that starts a job in the background lets it ignore Ctrl-C, and children inherit that: here it counts.
signal.signal(signal.SIGINT, signal.default_int_handler)
