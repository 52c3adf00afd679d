"""Devices of torch by name, the CPUs of this process, and constants that are copied to a device once."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarl.errors import UsageError
from metarl.parallel import launched_here


def resolve_device(device: torch.device | str) -> torch.device:
    """`device` as a `torch.device`; raises `UsageError` if it is unknown or this machine lacks it."""
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {str(device)!r}: say 'cpu', 'cuda' or 'cuda:N'") from None
    if resolved.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (resolved.index or 0) >= count:
            found = f"{count} CUDA device(s)" if count else "no CUDA device"
            raise UsageError(f"device {str(device)!r} is not there: torch finds {found}; use --device cpu")
    elif resolved.type != "cpu":
        raise UsageError(f"device {str(device)!r} is not supported: metarl runs on 'cpu' and 'cuda'")
    return resolved


def num_cpus() -> int:
    """The CPUs that this process may use: its share, if torchrun has started several on this machine."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // launched_here())


class Constant:
    """Fixed numbers as a tensor of any device and dtype, copied there once.

    Every copy from host memory makes a GPU wait, so a step loop must not make any.

    >>> from metarl.devices import Constant
    >>> centre = Constant([0.0, 1.0])
    >>> centre.like(torch.zeros(3, dtype=torch.float64))
    tensor([0., 1.], dtype=torch.float64)
    """

    def __init__(self, values: Any):
        first = torch.as_tensor(np.array(values) if isinstance(values, np.ndarray) else values)
        self._first = first.clone()
        self._copies = {(first.device, first.dtype): self._first}

    def like(self, other: Tensor) -> Tensor:
        """The numbers on the device of `other`, with its dtype."""
        return self._copy(other.device, other.dtype)

    def on(self, device: torch.device) -> Tensor:
        """The numbers on `device`, with the dtype that they were given in."""
        return self._copy(device, self._first.dtype)

    def _copy(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (device, dtype)
        if key not in self._copies:
            self._copies[key] = self._first.to(device=device, dtype=dtype)
        return self._copies[key]
