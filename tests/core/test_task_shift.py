"""Tasks outside the range of the training, exactly those and no others."""

import gymnasium as gym
import pytest
import torch

import metarl
from metarl.task_shift import outside_training_range, sample_outside


class Wheel(metarl.GymnasiumDistribution):
    """A pendulum whose test range is not its training range."""

    def __init__(self, lengths):
        super().__init__(
            "Wheel-v0",
            "Pendulum-v1",
            parameters={"length": lengths},
            apply=lambda env, task: setattr(env.unwrapped, "l", task["length"]),
            horizon=5,
            vectorization="sync",
        )


def test_outside_is_beyond_the_bounds_of_the_training():
    slow, fast = metarl.make("HalfCheetahVel-v0"), metarl.make("HalfCheetahVel-v0", max_velocity=4.0)
    tasks = sample_outside(slow, fast, 50, seed=3)
    assert len(tasks) == 50
    assert tasks == sample_outside(slow, fast, 50, seed=3)
    assert tasks != sample_outside(slow, fast, 50, seed=4)
    velocity = tasks.parameters["velocity"]
    assert bool(((velocity > 2) & (velocity <= 4)).all())
    assert float(velocity.mean()) == pytest.approx(3.0, abs=0.3)  # uniform, as the family draws
    fast.validate(tasks)


def test_the_training_range_is_that_of_the_train_split():
    family = Wheel({"train": (0.5, 1.0), "test": (0.5, 2.0)})
    tasks = metarl.Tasks({"length": torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)})
    assert outside_training_range(family, tasks).tolist() == [False, False, True]
    listed = Wheel({"train": [0.5, 1.0], "test": [0.75, 2.0]})
    tasks = metarl.Tasks({"length": torch.tensor([0.5, 0.75, 1.0], dtype=torch.float64)})
    assert outside_training_range(listed, tasks).tolist() == [False, True, False]


def test_one_number_outside_is_enough():
    family = metarl.make("PointNavigation-v0")
    tasks = metarl.Tasks({"goal": torch.tensor([[0.1, 0.5], [0.1, 0.6], [-0.7, 0.0]])})
    assert outside_training_range(family, tasks).tolist() == [False, True, True]


def test_a_shift_without_tasks_outside_is_refused():
    slow = metarl.make("HalfCheetahVel-v0")
    for other in (metarl.make("HalfCheetahVel-v0", max_velocity=1.0), metarl.make("HalfCheetahVel-v0", horizon=5)):
        with pytest.raises(metarl.UsageError, match=r"0 of 500 test tasks .* want 5: widen the shift"):
            sample_outside(slow, other, 5, seed=0)
    with pytest.raises(metarl.UsageError, match="has the task parameters velocity, not goal"):
        sample_outside(slow, metarl.make("PointNavigation-v0"), 5, seed=0)
    assert isinstance(slow.task_space["velocity"], gym.spaces.Box)
