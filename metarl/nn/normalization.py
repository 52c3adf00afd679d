"""Running statistics that bring inputs of networks to order one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metarl.parallel import Ranks


class RunningScale:
    """Divides each feature by its running root mean square if that exceeds 1.

    Joint velocities of ten radians per second saturate tanh units. Positions of a few centimetres do no harm and stay
    as they are.

    >>> from metarl.nn.normalization import RunningScale
    >>> scale = RunningScale(2)
    >>> scale.update(torch.tensor([[10.0, 0.1]]))
    >>> scale(torch.tensor([[10.0, 0.1]]))
    tensor([[1.0000, 0.1000]])
    """

    def __init__(self, size: int, device: torch.device | str = "cpu"):
        self.mean_square = torch.zeros(size, device=device)
        self.count = torch.zeros((), dtype=torch.float64, device=device)

    def __call__(self, values: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        if self.mean_square.device.type == "cpu" and not (self.mean_square > 1).any():
            return values  # no copy; a GPU would have to be waited for
        return values / self.mean_square.to(values.dtype).clamp(min=1).sqrt()

    def update(self, values: Float[Tensor, "... D"], ranks: Ranks | None = None) -> None:
        """Adds all rows of `values`, from all `ranks`, which have the same number of rows each."""
        ranks, rows = ranks or Ranks(), values.flatten(0, -2)
        number = len(rows) * ranks.world_size
        self.count = self.count + number
        share = (number / self.count).to(values.dtype)
        self.mean_square = self.mean_square + share * (ranks.mean(rows.square().mean(0)) - self.mean_square)


class RunningNorm(nn.Module):
    """Normalises each feature by the mean and variance of all values so far; the identity before the first update.

    Batches are merged exactly (Chan, Golub and LeVeque 1983).

    >>> from metarl.nn.normalization import RunningNorm
    >>> norm = RunningNorm(1)
    >>> norm.update(torch.tensor([[1.0], [3.0]]), torch.tensor([True, True]))
    >>> norm(torch.tensor([[4.0]]))
    tensor([[2.]])
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
        """Adds the `valid` rows of `values`."""
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
