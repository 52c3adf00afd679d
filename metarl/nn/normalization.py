"""Running means and variances, so that networks see numbers of order one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.parallel import Ranks


class RunningScale:
    """Divides features by their running root mean square where that exceeds 1.

    Joint velocities of ten radians per second drive tanh units into saturation; positions of some centimetres do no
    harm, and are left as they are.
    """

    def __init__(self, size: int, device: torch.device | str = "cpu"):
        self.mean_square = torch.zeros(size, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)

    def __call__(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return values / self.mean_square.to(values.dtype).clamp(min=1).sqrt()

    def update(self, values: Float[Tensor, "... D"], ranks: Ranks | None = None) -> None:
        """Takes in all rows of `values`, of all `ranks`, which have as many each."""
        ranks, rows = ranks or Ranks(), values.flatten(0, -2)
        number = len(rows) * ranks.world_size
        self.count = self.count + number
        share = (number / self.count).to(values.dtype)
        self.mean_square = self.mean_square + share * (ranks.mean(rows.square().mean(0)) - self.mean_square)


class RunningNorm(nn.Module):
    """Mean and variance of everything seen so far, per feature; the identity before anything has been seen.

    Batches are merged exactly (Chan, Golub and LeVeque 1983).
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, size: int, clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros(()))

    @property
    def std(self) -> Float[Tensor, "D"]:
        """The standard deviation, 1 for features that have not varied."""
        std = self.variance.sqrt()
        return torch.where(std > 1e-6, std, 1.0)

    @torch.no_grad()
    def update(self, values: Float[Tensor, "... D"], valid: Bool[Tensor, "..."]) -> None:
        """Takes in the `valid` rows of `values`."""
        rows = values[valid]
        count = torch.tensor(float(len(rows)), device=rows.device)
        variance, mean = torch.var_mean(rows, dim=0, correction=0)
        total = self.count + count
        shift = mean - self.mean
        old = self.variance * self.count
        self.variance.copy_((old + variance * count + shift.square() * self.count * count / total) / total)
        self.mean.add_(shift * count / total)
        self.count.copy_(total)

    def forward(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        return ((values - self.mean) / self.std).clamp(-self.clip, self.clip)
