"""The processes that train one agent together. Today there is one."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """`world_size` processes, each of which trains on its share of the tasks; this process is number `rank`.

    An agent that computes its sums and means over tasks with `sum` and `mean` makes the same update on R ranks with M/R
    tasks each as on one rank with M tasks. Today there is one rank, and both return their argument.

    >>> metarl.Ranks().mean(torch.tensor(3.0))
    tensor(3.)
    """

    world_size: int = 1
    rank: int = 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, on every rank."""
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of `tensor` over all ranks, on every rank."""
        return self.sum(tensor) / self.world_size if self.world_size > 1 else tensor

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replaces the gradient of each parameter that has one by its mean over all ranks."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.mean(parameter.grad)
