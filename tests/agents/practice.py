"""What tests of agents do again and again: train for a few iterations, and go on from a saved state."""

import torch


def train(agent, family, iterations, first=0):
    """The metrics of each iteration; iteration `i` has the tasks and the randomness of seed `i`."""
    env = family.make_env(agent.config.num_tasks, agent.config.envs_per_task)
    history = []
    for i in range(first, first + iterations):
        env.set_tasks(family.sample(agent.config.num_tasks, seed=i))
        history.append(agent.improve(env, seed=i))
    return history


def assert_goes_on_exactly(make_agent, family, *, before, after=1):
    """An agent of another seed that loads a state goes on as the agent does whose state it is."""
    straight, half, resumed = (make_agent(seed) for seed in (0, 0, 99))
    train(straight, family, before + after)
    train(half, family, before)
    resumed.load_state(*half.state())
    train(resumed, family, after, first=before)
    expected, actual = straight.state()[0], resumed.state()[0]
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
