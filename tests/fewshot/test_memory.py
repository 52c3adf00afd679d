"""What MANN and NTM have in common: how they read episodes."""

import pytest
import torch

from metarl.errors import UsageError
from metarl.fewshot.episodes import Episodes, EpisodeShape, Samples, TaskSpec
from metarl.fewshot.learners.mann import MANN, MANNConfig
from metarl.fewshot.learners.memory import MemoryConfig, MemoryLearner, cosine, examples_before, mix, repeat_first
from metarl.fewshot.learners.ntm import NTM, NTMConfig
from metarl.fewshot.preprocessing import Preprocessing
from metarl.randomness import make_generator

SMALL = {"controller_size": 8, "slots": 6, "slot_size": 5, "read_heads": 2, "learning_rate": 5e-3}
BOTH = pytest.mark.parametrize(("cls", "config"), [(MANN, MANNConfig), (NTM, NTMConfig)])


def clusters(count: int, shape: EpisodeShape, seed: int, size: int = 4) -> Episodes:
    """Classes are points in a plane of `size` dimensions, their examples lie close by."""
    generator = make_generator("clusters", seed)
    centers = 2 * torch.randn(count, shape.ways, size, generator=generator)

    def samples(each: int) -> Samples:
        order = torch.rand(count, shape.ways * each, generator=generator).argsort(1)
        y = torch.arange(shape.ways).repeat_interleave(each).expand(count, -1).gather(1, order)
        x = centers.gather(1, y[..., None].expand(-1, -1, size))
        return Samples(x + 0.1 * torch.randn(x.shape, generator=generator), y)

    return Episodes(samples(shape.shots), samples(shape.queries))


def spec_of(shape: EpisodeShape, size: int = 4) -> TaskSpec:
    return TaskSpec("classification", shape, Preprocessing((size,)), shape.ways)


SHAPE = EpisodeShape(ways=3, shots=2, queries=2)


def make(cls: type[MemoryLearner], config: type[MemoryConfig], **options: object) -> MemoryLearner:
    return cls(config(**{**SMALL, **options}), spec_of(SHAPE))


def test_a_class_distortion_that_can_flatten_images_is_refused():
    with pytest.raises(UsageError, match="class_distortion"):
        MANNConfig(class_distortion=0.5)


@BOTH
def test_query_is_next_in_sequence(cls, config):
    learner, episodes = make(cls, config), clusters(2, SHAPE, 0)
    outputs = learner.adapt(episodes.support)(episodes.query.x)
    for query in range(episodes.query.x.shape[1]):
        x = torch.cat([episodes.support.x, episodes.query.x[:, query : query + 1]], 1)
        y = torch.cat([episodes.support.y, torch.zeros(2, 1, dtype=torch.int64)], 1)
        along = learner.along(x, Samples(x, y))
        torch.testing.assert_close(outputs[:, query], along[:, -1])


@pytest.mark.parametrize("kind", ["lstm", "feed-forward"])
@BOTH
def test_the_gradient_of_what_is_fed_back_is_that_of_finite_differences(cls, config, kind):
    learner, episodes = make(cls, config, controller=kind), clusters(2, SHAPE, 0)
    learner.cell.double(), learner.readout.double()
    sequence = mix(episodes, make_generator(0))
    x, weight = sequence.x.double(), learner.cell.controller.feedback.weight

    def loss() -> torch.Tensor:
        inputs = torch.cat([x, learner._before(sequence).double()], 2).transpose(0, 1)
        outputs, _ = learner.cell(inputs, learner.cell.initial(2))
        return learner.readout(outputs).sin().sum()

    (found,) = torch.autograd.grad(loss(), weight)
    assert found.abs().max() > 1e-3
    with torch.no_grad():
        for row, column in [(0, 0), (3, 1), (7, 9), (5, 4)]:
            entry, sides = weight[row, column].item(), []
            for shift in (1e-6, -1e-6):
                weight[row, column] = entry + shift
                sides.append(loss().item())
            weight[row, column] = entry
            assert found[row, column].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-7)


@BOTH
def test_label_is_seen_one_step_later(cls, config):
    learner = make(cls, config)
    sequence = mix(clusters(1, SHAPE, 1), make_generator(0))
    before = learner.along(sequence.x, sequence)
    for step in range(sequence.x.shape[1]):
        y = sequence.y.clone()
        y[:, step] = (y[:, step] + 1) % SHAPE.ways
        after = learner.along(sequence.x, Samples(sequence.x, y))
        torch.testing.assert_close(after[:, : step + 1], before[:, : step + 1], rtol=0, atol=0)
        if step + 1 < sequence.x.shape[1]:
            assert not torch.equal(after[:, step + 1], before[:, step + 1])


@BOTH
def test_tasks_do_not_meet(cls, config):
    learner, episodes = make(cls, config), clusters(3, SHAPE, 2)
    together = learner.adapt(episodes.support)(episodes.query.x)
    for task in range(3):
        alone = episodes[task : task + 1]
        torch.testing.assert_close(learner.adapt(alone.support)(alone.query.x)[0], together[task])


@BOTH
def test_curve_counts_instances(cls, config):
    learner, episodes = make(cls, config), clusters(4, SHAPE, 3)
    curve = learner.curve(episodes)
    sequence = mix(episodes, learner.generator("instances"))
    guesses = learner.along(sequence.x, sequence).argmax(-1)
    for task in range(4):
        right: dict[int, list[float]] = {}
        seen = [0] * SHAPE.ways
        for guess, label in zip(guesses[task].tolist(), sequence.y[task].tolist(), strict=True):
            right.setdefault(seen[label], []).append(float(guess == label))
            seen[label] += 1
        assert sorted(right) == sorted(curve) == [0, 1, 2, 3]
        for count, values in right.items():
            assert float(curve[count][task]) == pytest.approx(sum(values) / len(values))


def test_examples_before():
    labels = torch.tensor([[0, 1, 0, 0, 1], [2, 2, 2, 0, 2]])
    assert examples_before(labels, 3).tolist() == [[0, 0, 1, 2, 1], [0, 1, 2, 0, 3]]


def test_mix_keeps_examples_together():
    episodes = clusters(2, SHAPE, 4)
    groups = Episodes(
        Samples(episodes.support.x, episodes.support.y, episodes.support.y + 10),
        Samples(episodes.query.x, episodes.query.y, episodes.query.y + 10),
    )
    mixed = mix(groups, make_generator(0))
    assert mixed.groups is not None
    assert torch.equal(mixed.groups, mixed.y + 10)
    for task in range(2):
        rows = {
            (*x, y) for x, y in zip(mixed.x[task].tolist(), mixed.y[task].tolist(), strict=True) for x in [tuple(x)]
        }
        parts = (episodes.support, episodes.query)
        assert rows == {(*x, y) for s in parts for x, y in zip(s.x[task].tolist(), s.y[task].tolist(), strict=True)}
    assert not torch.equal(mixed.y[0], mixed.y[1]) or not torch.equal(mixed.x[0].argsort(0), mixed.x[1].argsort(0))


def test_warm_up_repeats_the_first_example_of_each_class():
    y = torch.tensor([[2, 0, 2, 1, 0, 2], [0, 0, 1, 2, 1, 0]])
    x = torch.arange(12.0).reshape(2, 6, 1)
    repeated = repeat_first(Samples(x, y))
    assert repeated.x[..., 0].tolist() == [[0, 1, 0, 3, 1, 0], [6, 6, 8, 9, 8, 6]]
    assert torch.equal(repeated.y, y)


@BOTH
def test_warm_up_ends(cls, config, monkeypatch: pytest.MonkeyPatch):
    spec = TaskSpec("classification", SHAPE, Preprocessing((1, 8, 8)), 3)
    options = {**SMALL, "image_size": 8, "warm_up": 2, "train_shots": 2}
    learner = cls(config(**options), spec)
    seen = []
    monkeypatch.setattr(learner, "along", lambda x, sequence, along=learner.along: seen.append(x) or along(x, sequence))
    x = torch.rand(2, 6, 1, 8, 8, generator=make_generator(2))
    y = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)
    episodes = Episodes(Samples(x, y), Samples(x[:, :3] / 2, y[:, :3]))
    for step in range(3):
        learner.fit(episodes, seed=step)
    different = [len(torch.unique(images.flatten(2)[0], dim=0)) for images in seen]
    assert different == [3, 3, 9]


@BOTH
def test_regression_has_no_warm_up(cls, config):
    spec = TaskSpec("regression", EpisodeShape(1, 4, 3), Preprocessing((2,)), 1)
    with pytest.raises(UsageError, match="leave warm_up at 0"):
        cls(config(**SMALL, warm_up=3), spec)


def test_cosine_of_loops():
    generator = make_generator("cosine")
    keys, memory = torch.randn(2, 3, 5, generator=generator), torch.randn(2, 4, 5, generator=generator)
    memory[0, 1] = 0
    similarity = cosine(keys, memory)
    for b in range(2):
        for r in range(3):
            for m in range(4):
                norms = float(keys[b, r].norm() * memory[b, m].norm())
                want = float(keys[b, r] @ memory[b, m]) / norms if norms > 0 else 0.0
                assert float(similarity[b, r, m]) == pytest.approx(want, abs=1e-5)


def test_images_are_shrunk_and_standardised():
    learner = MANN(MANNConfig(**SMALL), TaskSpec("classification", SHAPE, Preprocessing((1, 28, 28)), 3))
    pictures = torch.rand(1, 6, 1, 28, 28, generator=make_generator(0))
    seen = learner._inputs(pictures, torch.zeros(1, 6, 3))
    assert seen.shape == (6, 1, 20 * 20 + 3)
    assert seen[..., :400].mean(2).abs().max() < 1e-6
    assert seen[..., :400].std(2, correction=0).flatten().tolist() == pytest.approx([1.0] * 6, abs=1e-3)


@BOTH
def test_regression(cls, config):
    shape = EpisodeShape(1, 4, 3)
    learner = cls(config(**SMALL), TaskSpec("regression", shape, Preprocessing((1,)), 1))
    x, y = torch.randn(2, 7, 1, generator=make_generator(1)), torch.randn(2, 7, 1, generator=make_generator(2))
    episodes = Episodes(Samples(x[:, :4], y[:, :4]), Samples(x[:, 4:], y[:, 4:]))
    assert learner.adapt(episodes.support)(episodes.query.x).shape == (2, 3, 1)
    sequence = mix(episodes, learner.generator("instances"))
    errors = (learner.along(sequence.x, sequence) - sequence.y)[..., 0] ** 2
    assert {n: v.tolist() for n, v in learner.curve(episodes).items()} == {
        n: pytest.approx(errors[:, n].tolist()) for n in range(7)
    }
    assert set(learner.fit(episodes, seed=0)) == {"loss", "mse", "gradient_norm"}


@BOTH
def test_learns_to_tell_clusters_apart(cls, config):
    shape = EpisodeShape(2, 4, 4)
    learner = cls(config(**{**SMALL, "learning_rate": 2e-2}), spec_of(shape))
    for step in range(150):
        learner.fit(clusters(16, shape, step), seed=step)
    test = clusters(200, shape, 10_000)
    outputs = learner.adapt(test.support)(test.query.x)
    assert learner.score(outputs, test.query)["accuracy"] > 0.75  # chance is 0.5


@BOTH
def test_state_comes_back(cls, config):
    learner, episodes = make(cls, config), clusters(2, SHAPE, 5)
    learner.fit(episodes, seed=0)
    other = cls(config(**SMALL), spec_of(SHAPE), seed=1)
    other.load_state(*learner.state())
    want, got = (one.adapt(episodes.support)(episodes.query.x) for one in (learner, other))
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert learner.fit(episodes, seed=1) == other.fit(episodes, seed=1)
    torch.testing.assert_close(other.state()[0], learner.state()[0], rtol=0, atol=0)


@BOTH
def test_paper_sequences_by_default(cls, config):
    for shots, wanted in ((1, 9), (12, 12)):
        spec = spec_of(EpisodeShape(5, shots, 15))
        learner = cls(cls.default_config(spec), spec)
        assert isinstance(learner.config, config)
        assert learner.training_shape == EpisodeShape(5, wanted, 1)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="slots must be at least read_heads"):
        MANNConfig(slots=2, read_heads=3)
    with pytest.raises(UsageError, match="controller_size"):
        NTMConfig(controller_size=0)
    with pytest.raises(UsageError, match="usage_decay"):
        MANNConfig(usage_decay=1.5)
