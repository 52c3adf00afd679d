"""An order of support examples that does not depend on how a user happened to list them.

A support set is a set. A learner that reads it as a sequence, or takes some of its examples first, as Reptile's
mini-batches do, is trained on random orders, and must not answer differently for a file that somebody has sorted.
"""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor

from metarl.fewshot.episodes import Samples


def by_content(support: Samples) -> Samples:
    """The examples of each task in the order of a hash of what they are: inputs, label and group.

    It looks random, so that it says nothing of the classes, and equal sets have the same order, bit by bit.

    >>> from metarl.fewshot import Samples
    >>> from metarl.fewshot.support_order import by_content
    >>> x, y = torch.arange(6.0).view(1, 6, 1), torch.tensor([[0, 1, 2, 0, 1, 2]])
    >>> ordered = by_content(Samples(x, y))
    >>> torch.equal(by_content(Samples(x.flip(1), y.flip(1))).x, ordered.x)
    True
    """
    return reordered(support, content_order(support))


@torch.no_grad()
def content_order(support: Samples) -> Int[Tensor, "E S"]:
    """The place, in `support`, of the first, second, … example of `by_content`."""
    parts = [part for part in (support.x, support.y, support.groups) if part is not None]
    flat = [(part.detach().cpu().flatten(2) if part.ndim > 2 else part.cpu()[..., None]).numpy() for part in parts]
    orders = []
    for task in range(len(support.x)):
        keys = [b"".join(part[task, row].tobytes() for part in flat) for row in range(support.x.shape[1])]
        hashes = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
        orders.append(sorted(range(len(keys)), key=hashes.__getitem__))
    return torch.tensor(orders, device=support.x.device)


def reordered(support: Samples, order: Int[Tensor, "E S"]) -> Samples:
    """The examples at the places `order` of each task."""
    tasks = torch.arange(len(order), device=order.device)[:, None]
    groups = None if support.groups is None else support.groups[tasks, order]
    return Samples(support.x[tasks, order], support.y[tasks, order], groups)
