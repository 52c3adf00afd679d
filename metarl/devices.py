"""Torch devices by name, with one clear line where one is not there."""

import torch

from metarl.errors import UsageError


def resolve_device(device: torch.device | str) -> torch.device:
    """`device` as a `torch.device`; raises `UsageError` where it is unknown or not on this machine."""
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
