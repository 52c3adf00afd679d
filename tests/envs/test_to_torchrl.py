"""`metarl.to_torchrl`: TorchRL's own check of specs, and episodes as metarl's rollouts have them."""

import pytest
import torch

import metarl
from metarl.rollout import FunctionPolicy

pytestmark = pytest.mark.filterwarnings("ignore")  # TorchRL's own, when it is imported
pytest.importorskip("torchrl")

KINDS = {
    "native": lambda: metarl.make("PointNavigation-v0", horizon=5),
    "success": lambda: metarl.make("SparsePointNavigation-v0", horizon=5),
    "choices": lambda: metarl.make("Bandit-v0", arms=5, pulls=5),
    "gymnasium": lambda: metarl.make("CartPoleParams-v0", horizon=20),
    "locomotion": lambda: metarl.make("HalfCheetahDir-v0", horizon=5),
    "meta-world": lambda: metarl.make("ML1-reach-v3", horizon=5),
}


def make(family):
    env = family.make_env(2, 2)
    env.set_tasks(family.sample(2, seed=0))
    return env


@pytest.mark.parametrize("kind", KINDS)
def test_its_specs_pass_torchrls_check(kind):
    from torchrl.envs.utils import check_env_specs

    env = metarl.to_torchrl(make(KINDS[kind]()))
    check_env_specs(env)
    rollout = env.rollout(24, break_when_any_done=False)
    assert rollout.batch_size == (4, 24)
    env.close()


def test_a_rollout_is_metarls():
    """The same seed and policy: the same rewards, ends and observations, over several episodes."""
    family = KINDS["gymnasium"]()
    env = make(family)
    trajectories = metarl.collect(env, FunctionPolicy(lambda seen: (seen[:, 2] > 0).long()), 40, seed=3)
    adapter = metarl.to_torchrl(env)
    adapter._set_seed(3)
    rollout = adapter.rollout(
        40, lambda td: td.set("action", (td["observation"][:, 2] > 0).long()), break_when_any_done=False
    )
    for name, theirs in (
        ("observations", rollout["observation"]),
        ("rewards", rollout["next", "reward"][..., 0]),
        ("terminated", rollout["next", "terminated"][..., 0]),
        ("truncated", rollout["next", "truncated"][..., 0]),
    ):
        ours = getattr(trajectories, name).flatten(1, 2).transpose(0, 1)
        assert torch.equal(ours, theirs.to(ours.dtype)), name
    assert rollout["next", "done"].any()


def test_mistakes_are_told_in_a_line():
    adapter = metarl.to_torchrl(make(KINDS["native"]()))
    start = adapter.reset()
    for _ in range(5):
        start = adapter.step(start.set("action", torch.full((4, 2), 0.01)))["next"]
    with pytest.raises(metarl.UsageError, match="reset its environment before the next step"):
        adapter.step(start.set("action", torch.zeros(4, 2)))
    start = adapter.reset()
    start["_reset"] = torch.tensor([True, False, False, False])[:, None]
    with pytest.raises(metarl.UsageError, match="not in the middle of an episode"):
        adapter.reset(start)
