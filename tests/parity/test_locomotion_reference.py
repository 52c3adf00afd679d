"""The backend "mujoco" against the backend "gymnasium", task by task: rewards, terminations, randomised dynamics."""

import numpy as np
import pytest
import torch

import metarl

FAMILIES = {
    "HalfCheetahDir-v0": {},
    "HalfCheetahVel-v0": {},
    "AntDir-v0": {"circle": True},
    "AntVel-v0": {},
    "AntGoal-v0": {},
    "HumanoidDir-v0": {},
    "Walker2dRandParams-v0": {"log_scale_limit": 1.0},
    "HopperRandParams-v0": {"log_scale_limit": 1.0},
}


@pytest.mark.parametrize("id", FAMILIES)
def test_tasks_mean_the_same_on_gymnasiums_environments(id):
    family = metarl.make(id, **FAMILIES[id])
    tasks = family.sample(2, seed=1)
    env, reference = (family.make_env(2, 2, backend=backend) for backend in ("mujoco", "gymnasium"))
    low, high = torch.as_tensor(family.action_space.low), torch.as_tensor(family.action_space.high)
    generator = torch.Generator().manual_seed(0)
    try:
        for each in (env, reference):
            each.set_tasks(tasks)
            each.reset(seed=0)
        state, start = env.get_state(), reference.get_state()
        env.set_state(state | {name: start[name] for name in ("qpos", "qvel")})
        alike = torch.ones(4, dtype=torch.bool)  # until the reference starts another episode of its own
        for _ in range(15):
            action = low + (high - low) * torch.rand(4, len(low), generator=generator)
            _, reward, terminated, _, info = env.step(action)
            _, expected, expected_end, _, expected_info = reference.step(action)
            seen, wanted = info["final_obs"][alike], expected_info["final_obs"][alike]
            np.testing.assert_allclose(seen, wanted, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(reward[alike], expected[alike], atol=1e-5, rtol=1e-5)
            assert torch.equal(terminated[alike], expected_end[alike])
            alike &= ~expected_end
    finally:
        env.close()
        reference.close()
