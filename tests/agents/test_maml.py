"""MAML as an agent: it learns, adapts, saves and resumes, with every option that a paper used."""

import pytest
import torch
from practice import assert_goes_on_exactly, train

import metarl
from metarl.adaptation import adapt, stack
from metarl.agents.maml import MAML, MAMLConfig
from metarl.agents.meta_objective import SCALE, split
from metarl.nn.policy import StackedPolicy
from metarl.randomness import derive_seed, make_generator


def make_agent(distribution, seed=0, **options):
    config = MAMLConfig(**({"num_tasks": 4, "envs_per_task": 5, "hidden": (16,)} | options))
    return MAML(config, metarl.EnvSpec.of(distribution), seed=seed)


def test_it_learns_to_navigate_to_unseen_goals():
    distribution = metarl.make("PointNavigation-v0")
    agent = make_agent(distribution, num_tasks=10, envs_per_task=10, hidden=(32, 32), curvature_fraction=0.5)
    train(agent, distribution, 15)
    evaluation = metarl.evaluate(agent, distribution, num_tasks=20, seed=1)
    zero_shot, one_step, *_, three_steps = evaluation.returns.mean(0).tolist()
    assert evaluation.episodes_used == [0, 10, 20, 30]
    assert one_step > zero_shot + 3
    assert one_step > -15
    assert three_steps > one_step


OPTIONS = [
    {"first_order": True},
    {"outer": "ppo"},
    {"outer": "promp"},
    {"exploration": True},
    {"outer": "ppo", "exploration": True},
    {"inner_steps": 2},
    {"curvature_fraction": 0.25},
    {"learn_inner_lr": True},
    {"learn_inner_lr": True, "outer": "promp"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_improves_the_policy_that_it_adapts(options):
    distribution = metarl.make("PointNavigation-v0", horizon=20)
    agent = make_agent(distribution, num_tasks=10, envs_per_task=10, hidden=(32,), outer_lr=0.02, **options)
    history = train(agent, distribution, 12)
    assert all(metrics["surrogate_gain"] >= 0 for metrics in history)
    early, late = (sum(m["return_mean"] for m in part) / 3 for part in (history[:3], history[-3:]))
    assert late > early + 0.5


@pytest.mark.parametrize("id", ["Bandit-v0", "TabularMDP-v0", "SparsePointNavigation-v0"])
def test_discrete_actions_and_other_families(id):
    distribution = metarl.make(id)
    agent = make_agent(distribution)
    (metrics,) = train(agent, distribution, 1)
    assert metrics["env_steps"] == 2 * 4 * 5 * distribution.horizon
    assert all(value == value for value in metrics.values())


@pytest.mark.parametrize("outer", ["trpo", "promp"])
def test_going_on_from_a_saved_state_is_exact(outer):
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    assert_goes_on_exactly(lambda seed: make_agent(distribution, seed, outer=outer), distribution, before=2, after=2)


def test_a_state_of_another_shape_is_refused():
    distribution = metarl.make("PointNavigation-v0")
    with pytest.raises(metarl.UsageError, match="not of this agent"):
        make_agent(distribution).load_state(*make_agent(distribution, hidden=(7,)).state())
    tensors, values = make_agent(distribution).state()
    with pytest.raises(metarl.UsageError, match="not of this agent"):
        make_agent(distribution).load_state({n: t for n, t in tensors.items() if n != "scale.count"}, values)


def test_adapting_takes_a_step_for_each_batch_of_episodes_and_one_for_the_rest():
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(distribution)
    env = distribution.make_env(3, 2)
    env.set_tasks(distribution.sample(3, split="test", seed=0))
    policy = agent.adapt(env, 12)  # 5 + 5 + 2
    assert policy.steps == 3
    further = agent.adapt(env, 5, policy=policy)
    assert (policy.steps, further.steps) == (3, 4)
    unchanged = agent.adapt(env, 0, policy=policy)
    assert all(torch.equal(policy.parameters[n], unchanged.parameters[n]) for n in policy.parameters)
    assert agent.stages(12) == [0, 5, 10, 12]
    assert agent.stages(3) == [0, 3]


def test_tasks_do_not_touch_each_other():
    """The adapted parameters of a task stay what they are when another task's rewards change."""
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(distribution)
    env = distribution.make_env(2, 5)
    for second in ([0.4, 0.4], [-0.5, 0.1]):
        env.set_tasks(metarl.Tasks({"goal": torch.tensor([[0.1, 0.2], second])}))
        parameters = agent.adapt(env, 5, seed=3).parameters
        if second[0] > 0:
            first = {name: value.clone() for name, value in parameters.items()}
    for name, value in parameters.items():
        torch.testing.assert_close(value[0], first[name][0])
    assert not torch.allclose(parameters["weight0"][1], first["weight0"][1])


def test_learned_step_sizes_are_trained_saved_and_used_to_adapt():
    distribution = metarl.make("PointNavigation-v0", horizon=10)

    def make(seed):
        return make_agent(distribution, seed, learn_inner_lr=True)

    assert_goes_on_exactly(make, distribution, before=2, after=2)
    agent = make(0)
    assert all((value == 1).all() for name, value in agent.parameters.items() if name.startswith(SCALE))
    train(agent, distribution, 2)
    scales = {name.removeprefix(SCALE): v for name, v in agent.state()[0].items() if name.startswith(SCALE)}
    assert not (scales["weight0"] == 1).any()
    env = distribution.make_env(2, 5)
    env.set_tasks(distribution.sample(2, seed=0))
    policy = agent.adapt(env, 5, seed=3)
    start = split(agent._initial())[0]
    actor = StackedPolicy(agent.network, stack(start, 2), make_generator("maml", "adapt", 3))
    trajectories = metarl.collect(env, actor, 10, seed=derive_seed(3, 0))
    batch, _ = agent._batch(trajectories, torch.ones_like(trajectories.ended))
    with torch.no_grad():
        slope = agent._gradient(agent.network, batch)(stack(start, 2))
    for name, value in start.items():
        expected = value - agent.config.inner_lr * scales[name] * slope[name]
        torch.testing.assert_close(policy.parameters[name], expected)
    before = {name: value.clone() for name, value in policy.scales.items()}
    train(agent, distribution, 1, first=2)
    assert all(torch.equal(policy.scales[name], before[name]) for name in before)
    assert agent.adapt(env, 5, policy=policy).scales is policy.scales


@pytest.mark.parametrize("options", [{"curvature_fraction": 0.0}, {"inner_steps": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(metarl.UsageError, match=next(iter(options))):
        MAMLConfig(**options)


def test_every_complete_episode_is_learned_from_and_no_other(monkeypatch):
    collected = []

    def collect(*args, **kwargs):
        collected.append(metarl.collect(*args, **kwargs))
        return collected[-1]

    monkeypatch.setattr("metarl.agents.policy_gradient.collect", collect)
    distribution = metarl.make("CartPoleParams-v0", horizon=60)
    agent = make_agent(distribution, num_tasks=3, envs_per_task=4)
    env = distribution.make_env(3, 4)
    env.set_tasks(distribution.sample(3, seed=0))
    objective, _ = agent._rollouts(env, 0)
    for batch, trajectories in zip((objective.steps[0].gradient.batch, objective.query), collected, strict=True):
        valid = batch.valid.unflatten(1, (4, 60))
        for m in range(3):
            for n in range(4):
                ends = trajectories.ended[:, m, n].nonzero()[:, 0]
                last = int(ends[-1]) if len(ends) else -1
                assert valid[m, n].tolist() == [t <= last for t in range(60)]
        assert not batch.weights[~batch.valid].any()
        assert trajectories.ended.sum(0).max() > 1
    env.close()


def test_an_episode_of_adaptation_is_an_episode_whatever_the_training_was():
    """Trained at 10 steps an episode, adapted at 50: the gradient is that of whole episodes of 50 steps."""
    trained, distribution = (metarl.make("PointNavigation-v0", horizon=horizon) for horizon in (10, 50))
    agent = make_agent(trained)
    env = distribution.make_env(2, 5)
    env.set_tasks(distribution.sample(2, split="test", seed=0))
    policy = agent.adapt(env, 5, seed=3)
    actor = StackedPolicy(agent.network, stack(agent._initial(), 2), make_generator("maml", "adapt", 3))
    trajectories = metarl.collect(env, actor, 50, seed=derive_seed(3, 0))
    assert trajectories.ended[-1].all()
    batch, _ = agent._batch(trajectories, torch.ones_like(trajectories.ended))
    gradient = agent._gradient(agent.network, batch)
    expected = adapt(stack(agent._initial(), 2), [gradient], [agent.config.inner_lr])
    for name, value in expected.items():
        torch.testing.assert_close(policy.parameters[name], value)


@pytest.mark.parametrize("episodes", [0, 5])
def test_an_adapted_policy_does_not_change_when_training_goes_on(episodes):
    distribution = metarl.make("PointNavigation-v0", horizon=10)
    agent = make_agent(distribution)
    env = distribution.make_env(2, 5)
    env.set_tasks(distribution.sample(2, seed=0))
    policy = agent.adapt(env, episodes, seed=1)
    before = metarl.collect(env, policy.fork(), 10, seed=2).actions
    # What is large in what it sees moves the running scale, which the policy must not share either.
    agent.network.scale.update(100 * torch.ones(50, 2))
    train(agent, distribution, 2)
    assert torch.equal(metarl.collect(env, policy.fork(), 10, seed=2).actions, before)
