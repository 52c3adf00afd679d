"""Starts Warp, which compiles for the GPU and for the CPU, so that users of either notice nothing of it."""

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import warp as wp


@functools.cache
def start_warp() -> None:
    """Initialises Warp without its banner and reports, and with a folder for compiled kernels that can be written.

    If Warp's own folder cannot be, in a container with a read-only home for instance, a temporary one serves this
    process, which then compiles what other processes have compiled before. `WARP_CACHE_PATH` names a better one.
    """
    wp.config.log_level = wp.LOG_WARNING
    wp.config.cuda_output = "cubin"  # what `metarl precompile` makes; PTX is compiled again by each driver, or refused
    try:
        with _standard_error_closed():  # on a machine without an NVIDIA driver, Warp's library says so there
            wp.init()
    except OSError:  # its folder cannot be made
        _keep_kernels_in_a_temporary_folder()
        with _standard_error_closed():
            wp.init()
    folder = wp.config.kernel_cache_dir
    if folder is None or not os.access(folder, os.W_OK):
        _keep_kernels_in_a_temporary_folder()


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="warp-")  # removed when the process ends


def _keep_kernels_in_a_temporary_folder() -> None:
    wp.config.kernel_cache_dir = _temporary_folder().name


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Drops what is written to the process's standard error, by native code too."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
