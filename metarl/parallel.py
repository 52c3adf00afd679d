"""The processes that train one agent together: today one, whose sums and means are its own."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """`world_size` processes that each train on their share of the tasks; this one is number `rank`.

    An agent that takes its sums and means over tasks through `sum` and `mean` makes the same update on R ranks with M/R
    tasks each as on one with M. There is one rank today: both return what they are given.

    >>> Ranks().mean(torch.tensor(3.0))
    tensor(3.)
    """

    world_size: int = 1
    rank: int = 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks, which all of them get."""
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of `tensor` over all ranks, which all of them get."""
        return self.sum(tensor) / self.world_size if self.world_size > 1 else tensor
