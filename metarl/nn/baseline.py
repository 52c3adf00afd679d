"""The linear feature baseline (Duan et al. 2016, "Benchmarking deep reinforcement learning", supplement 2).

The paper fits 2D + 4 numbers to the returns of each task. With wide observations that is as many as there are samples:
the fit reproduces the returns themselves, and no advantage is left to learn from. Here a task gets the paper's features
if its samples bear them, and fewer otherwise.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.nn.blocks import task_blocks
from metarl.nn.wide import WideVectors
from metarl.parallel import Ranks
from metarl.randomness import make_generator
from metarl.spaces import Observations
from metarl.threads import in_threads

SAMPLES_PER_FEATURE = 10
"""Fewest samples per feature: a fit removes at most a tenth of the variance of noise that changes in every step."""
EPISODE_SHARE = 0.5
"""Most that a fit may remove of the variance of noise that is constant in an episode."""
MAX_FEATURES = 256
"""Most features of a fit, which bounds its cost."""
SKETCH = 32
"""Numbers that wide observations are reduced to."""
TIME_FEATURES = 4
CHUNK = 2**20
"""Numbers of wide observations to convert at a time."""
_Features = Callable[[slice], Float[Tensor, "T m N d"]]
"""Numbers that a fit may use, for a block of tasks."""


@dataclass(frozen=True)
class Baseline:
    """Fitted returns of `M` tasks, and what they were fitted with.

    >>> from metarl.nn.baseline import baseline_metrics, fit_baseline
    >>> time = torch.arange(100)[:, None, None].expand(100, 1, 2)
    >>> observations = torch.rand(100, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    >>> returns = 2 * observations[..., 0]
    >>> baseline = fit_baseline(observations, time, returns, valid=returns >= 0)
    >>> torch.allclose(baseline.values, returns, atol=1e-3)
    True
    >>> baseline.num_features  # 2 · 3 + 4
    tensor([10])
    """

    values: Float[Tensor, "T M N"]
    """The fitted return at every step, also at those that were not fitted to."""
    num_features: Int[Tensor, "M"]
    """Features of each task's fit; 4 if it is a function of time alone."""
    held_out_error: Float[Tensor, "M"]
    """Sum of squared errors of every second environment under a fit to the others, and the reverse."""
    squared_deviation: Float[Tensor, "M"]
    """Sum of squared differences of the returns from their mean."""


def baseline_metrics(*baselines: Baseline, ranks: Ranks | None = None) -> dict[str, float]:
    """The mean number of features, and the share of the variance that fits explain in episodes they have not seen.

    `baseline_r2` is 1 − held-out error / squared deviation, over all tasks of all `ranks`. It is below 0 if the mean
    return is a better guess, and 0 if returns do not differ or tasks have one environment each.
    """
    features = torch.cat([baseline.num_features for baseline in baselines])
    sums = [torch.cat([b.held_out_error for b in baselines]), torch.cat([b.squared_deviation for b in baselines])]
    error, deviation = (ranks or Ranks()).sum(torch.stack([values.sum() for values in sums])).tolist()
    return {
        "baseline_features": float(features.double().mean()),
        "baseline_r2": 1 - error / deviation if deviation > 0 else 0.0,
    }


def episode_time(episode_starts: Bool[Tensor, "T ..."]) -> Int[Tensor, "T ..."]:
    """The number of steps of its episode before each step."""
    steps = torch.arange(len(episode_starts), device=episode_starts.device)
    steps = steps.reshape(-1, *[1] * (episode_starts.ndim - 1)).expand(episode_starts.shape)
    return steps - torch.where(episode_starts, steps, 0).cummax(0).values


def fit_baseline(
    observations: Observations | WideVectors,
    time: Int[Tensor, "T M N"],
    returns: Float[Tensor, "T M N"],
    valid: Bool[Tensor, "T M N"],
    *,
    ridge: float = 1e-5,
) -> Baseline:
    """Fits `returns` by least squares on the `valid` steps of each task, (XᵀX + ridge) w = Xᵀy in float64.

    `observations` are `[T, M, N, D]` (also as `WideVectors`), pictures `[T, M, N, H, W, C]` or a dictionary of these,
    `time` the steps of the episode before each step. Each task is fitted by itself with the first of these sets that
    its samples bear:

    1. [o, o², t/100, (t/100)², (t/100)³, 1], the paper's, with observations clipped to ±10; not for pictures;
    2. [s, t/100, (t/100)², (t/100)³, 1], where s is o if that has at most 32 numbers, and otherwise 32 fixed random
       projections of it, pictures divided by 255; entries of a dictionary are projected apart and share the 32;
    3. [t/100, (t/100)², (t/100)³, 1].

    Samples bear F features if there are at least 10 F of them, F is at most 256, and the fit has freedom for at most
    half of the differences between episodes: Σ_e x̄_eᵀ (XᵀX + ridge)⁻¹ x̄_e n_e ≤ 1 + (E − 1) / 2, for E episodes of
    n_e samples with mean features x̄_e. The sum counts the mean returns of episodes that the fit can reproduce at will:
    from 1, which time alone can, to E, if observations tell the episodes apart and do not change inside them. Returns
    have no part in the choice.

    Steps that are not valid never enter, whatever numbers they hold.
    """
    room = min(valid[:, 0].numel() // SAMPLES_PER_FEATURE, MAX_FEATURES)
    numbers = returns.numel() * min(room, 2 * _width(observations) + TIME_FEATURES)
    blocks = task_blocks(returns.shape[1], numbers, returns.device)
    samples = in_threads(lambda b: _Samples.of(time[:, b], returns[:, b], valid[:, b]), blocks, numbers)
    best: _Fit | None = None
    for features in _feature_sets(observations, room):
        fit_block = functools.partial(_fit, features, ridge)
        fit = _Fit.of_all(in_threads(fit_block, list(zip(blocks, samples, strict=True)), numbers))
        best = fit if best is None else best.where_borne(fit)
        if bool(best.borne.all()):
            break
    assert best is not None  # the set without observations is always there
    deviation = torch.cat([block.squared_deviation() for block in samples])
    return Baseline(
        values=best.values.to(returns.dtype).unflatten(1, returns.shape[::2]).transpose(0, 1),
        num_features=best.num_features,
        held_out_error=best.held_out_error if returns.shape[2] > 1 else deviation,
        squared_deviation=deviation,
    )


@dataclass(frozen=True)
class _Samples:
    """The steps of M tasks as rows `[M, n, ...]`, n = T · N; those of one time step are neighbours."""

    time: Float[Tensor, "M n 4"]
    returns: Float[Tensor, "M n 1"]
    """The mean of the task's returns at steps that are not valid."""
    valid: Bool[Tensor, "M n 1"]
    all_valid: bool
    num_envs: int
    episode: Int[Tensor, "M n"]
    """Environment + N · index of the episode in it."""
    episode_steps: Int[Tensor, "M E"]
    """Valid steps of each episode; some have none."""

    @staticmethod
    def of(time: Int[Tensor, "T M N"], returns: Float[Tensor, "T M N"], valid: Bool[Tensor, "T M N"]) -> "_Samples":
        num_envs = time.shape[2]
        index = (time == 0).long().cumsum(0)
        index = index - index[:1]  # from 0, also if the first step is in the middle of an episode
        episode = _rows(index * num_envs + torch.arange(num_envs, device=time.device))
        steps = torch.zeros(len(episode), int(episode.max()) + 1, dtype=torch.int64, device=time.device)
        total = torch.where(valid, returns, 0).double().sum((0, 2), keepdim=True)
        mean = total / valid.sum((0, 2), keepdim=True).clamp(min=1)
        t = _rows(time).double()[..., None] / 100
        return _Samples(
            time=torch.cat([t, t**2, t**3, torch.ones_like(t)], -1),
            returns=_rows(torch.where(valid, returns.double(), mean))[..., None],
            valid=_rows(valid)[..., None],
            all_valid=bool(valid.all()),
            num_envs=num_envs,
            episode=episode,
            episode_steps=steps.scatter_add_(1, episode, _rows(valid).long()),
        )

    @property
    def count(self) -> Int[Tensor, "M"]:
        return self.episode_steps.sum(1)

    @property
    def num_episodes(self) -> Int[Tensor, "M"]:
        return (self.episode_steps > 0).sum(1)

    def squared_deviation(self) -> Float[Tensor, "M"]:
        mean = (self.returns * self.valid).sum(1, keepdim=True) / self.count[:, None, None].clamp(min=1)
        return (self.returns - mean).square().sum((1, 2))

    def episode_sums(self, values: Float[Tensor, "M n F"]) -> Float[Tensor, "M E F"]:
        shape = self.episode_steps.shape
        first = shape[1] * torch.arange(shape[0], device=values.device)
        sums = values.new_zeros(shape.numel(), values.shape[-1])
        return sums.index_add_(0, (self.episode + first[:, None]).flatten(), values.flatten(0, 1)).unflatten(0, shape)

    def half(self, values: Shaped[Tensor, "M n k"], first: int) -> Shaped[Tensor, "M h k"]:
        """The rows of every second environment; a view if N is even."""
        return values.unflatten(1, (-1, self.num_envs))[:, :, first::2].flatten(1, 2)


@dataclass(frozen=True)
class _Fit:
    """Least squares of M tasks with one set of features."""

    values: Float[Tensor, "M n"]
    num_features: Int[Tensor, "M"]
    held_out_error: Float[Tensor, "M"]
    borne: Bool[Tensor, "M"]
    """Whether the samples bear the features."""

    @staticmethod
    def of_all(blocks: Sequence["_Fit"]) -> "_Fit":
        """The fits of all tasks from those of blocks of them."""
        return _Fit(*(torch.cat([getattr(fit, field.name) for fit in blocks]) for field in fields(_Fit)))

    def where_borne(self, other: "_Fit") -> "_Fit":
        """This fit for the tasks that bear it, and `other` for the rest."""
        return _Fit(
            torch.where(self.borne[:, None], self.values, other.values),
            torch.where(self.borne, self.num_features, other.num_features),
            torch.where(self.borne, self.held_out_error, other.held_out_error),
            self.borne | other.borne,
        )


def _fit(features: _Features, ridge: float, block: tuple[slice, _Samples]) -> _Fit:
    """Least squares on `features` and time, for a block of tasks."""
    tasks, samples = block
    inputs = features(tasks)
    x = valid_x = torch.cat([_rows(inputs), samples.time], -1)  # float64
    if not samples.all_valid:
        x.masked_fill_(x.isnan() & ~samples.valid, 0)
        valid_x = x * samples.valid
    y, num_features = samples.returns, x.shape[-1]
    halves = [(samples.half(valid_x, first), samples.half(y, first)) for first in (0, 1)]
    gram = torch.stack([half.mT @ half for half, _ in halves])
    moment = torch.stack([half.mT @ returns for half, returns in halves])
    damping = ridge * torch.eye(num_features, dtype=x.dtype, device=x.device)
    sums = samples.episode_sums(valid_x)
    solved = torch.linalg.solve(gram.sum(0) + damping, torch.cat([moment.sum(0), sums.mT], -1))
    freedom = ((sums * solved[..., 1:].mT).sum(-1) / samples.episode_steps.clamp(min=1)).sum(1)
    half_solved = torch.linalg.solve(gram + damping, moment)
    low, high = y.amin(1, keepdim=True), y.amax(1, keepdim=True)
    errors = [
        ((half @ half_solved[1 - i]).clamp(low, high) - returns) * samples.half(samples.valid, i)
        for i, (half, returns) in enumerate(halves)
    ]
    enough = num_features * SAMPLES_PER_FEATURE <= samples.count
    bounded = freedom - 1 <= EPISODE_SHARE * (samples.num_episodes - 1) + 1e-3  # the last for rounding
    return _Fit(
        values=(x @ solved[..., :1])[..., 0],
        num_features=torch.full_like(samples.count, num_features),
        held_out_error=torch.cat(errors, 1).square().sum((1, 2)),
        borne=enough & bounded if inputs.shape[-1] else torch.ones_like(enough),
    )


def _feature_sets(observations: Observations | WideVectors, room: int) -> Iterator[_Features]:
    """What fits may use of the observations, richest first: sets that leave place for time among `room` features."""
    entries = _entries(observations)
    widths = [entry.shape[3:].numel() for entry in entries]
    if 2 * sum(widths) + TIME_FEATURES <= room:
        vectors = [entry for entry in entries if isinstance(entry, Tensor) and entry.dtype != torch.uint8]
        if len(vectors) == len(entries):
            yield functools.partial(_with_squares, vectors)
    size = max(SKETCH // len(entries), 1)
    if sum(min(width, size) for width in widths) + TIME_FEATURES <= room:
        sketch = torch.cat([_sketch(entry, size) for entry in entries], -1)
        yield lambda tasks: sketch[:, tasks]
    values = entries[0].values if isinstance(entries[0], WideVectors) else entries[0]
    nothing = torch.zeros(*values.shape[:3], 0, device=values.device)
    yield lambda tasks: nothing[:, tasks]


def _with_squares(vectors: Sequence[Tensor], tasks: slice) -> Float[Tensor, "T m N d"]:
    o = torch.cat([_as_numbers(vector[:, tasks]) for vector in vectors], -1)
    return torch.cat([o, o.square()], -1)


def _entries(observations: Observations | WideVectors) -> list[Tensor | WideVectors]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def _width(observations: Observations | WideVectors) -> int:
    """The numbers of one observation."""
    return sum(entry.shape[3:].numel() for entry in _entries(observations))


def _sketch(observations: Tensor | WideVectors, size: int) -> Float[Tensor, "T M N d"]:
    """At most `size` numbers per observation: random projections, the same for all observations of one width."""
    width = observations.shape[3:].numel()
    if isinstance(observations, Tensor) and width <= size:
        return _as_numbers(observations.flatten(3))
    projection = torch.randn(width, size, generator=make_generator("baseline", width)) / width**0.5
    if isinstance(observations, WideVectors):
        shift = _as_numbers(observations.constants) @ projection
        return _as_numbers(observations.values) @ projection[observations.varying] + shift
    rows = observations.flatten(0, 2).flatten(1)
    projection = projection.to(rows.device)
    sketch = projection.new_empty(len(rows), size)  # small results kept one by one would split the memory of chunks
    step = max(CHUNK // width, 1)
    for start in range(0, len(rows), step):
        sketch[start : start + step] = _as_numbers(rows[start : start + step]) @ projection
    return sketch.unflatten(0, observations.shape[:3])


def _as_numbers(observations: Tensor) -> Tensor:
    """Vectors clipped to ±10, pictures between 0 and 1."""
    return observations / 255 if observations.dtype == torch.uint8 else observations.clamp(-10, 10)


def _rows(values: Tensor) -> Tensor:
    """`[T, M, N, ...]` as `[M, T·N, ...]`."""
    return values.transpose(0, 1).flatten(1, 2)
