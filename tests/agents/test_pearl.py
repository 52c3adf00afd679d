"""PEARL: what it stores, what it infers, what trains what, and that a run goes on exactly."""

import copy

import pytest
import torch
from gymnasium.spaces import Box
from torch.distributions import Normal, kl_divergence

import metarl
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.posterior_sampling import PEARLPolicy
from metarl.agents.sac import Transitions
from metarl.envs.native.point_navigation import PointNavigation
from metarl.experiment.checkpoints import load_checkpoint
from metarl.experiment.metrics import read_metrics

TINY = {
    "num_tasks": 3,
    "train_tasks": 5,
    "hidden": (16,),
    "encoder_hidden": (16,),
    "updates": 3,
    "meta_batch": 4,
    "batch_size": 8,
    "context_size": 6,
}


def family(horizon=5):
    return metarl.make("PointNavigation-v0", horizon=horizon)


def make_agent(seed=0, distribution=None, **options):
    return PEARL(PEARLConfig(**(TINY | options)), metarl.EnvSpec.of(distribution or family()), seed=seed)


def improve(agent, distribution, iterations=1):
    source, metrics = agent.task_source(distribution, seed=0), []
    env = distribution.make_env(agent.config.num_tasks, agent.config.envs_per_task)
    for i in range(iterations):
        env.set_tasks(source.draw(agent.config.num_tasks, seed=i))
        metrics.append(agent.improve(env, seed=i))
    env.close()
    return metrics


def started(distribution, num_tasks=3, envs_per_task=2):
    env = distribution.make_env(num_tasks, envs_per_task)
    env.set_tasks(distribution.sample(num_tasks, split="test", seed=0))
    return env


class LargeGoals(PointNavigation):
    """Random actions reach these goals, and end the episode."""

    goal_radius = 0.3


def test_stored_transitions_are_those_of_the_dynamics_over_the_ends_of_episodes():
    agent, distribution = make_agent(envs_per_task=4), LargeGoals(horizon=5)
    improve(agent, distribution, 2)
    rows = agent.replay.buffer.rows(0, agent.replay.buffer.count)
    goals = agent.train_tasks.tasks.parameters["goal"][rows["task"]]
    torch.testing.assert_close(rows["next_observations"], rows["observations"] + 0.1 * rows["actions"])
    distance = torch.linalg.vector_norm(rows["next_observations"] - goals, dim=-1)
    torch.testing.assert_close(rows["rewards"], -distance.square())
    assert torch.equal(rows["terminated"], distance <= 0.3)  # so truncated steps are not terminated
    assert 0.1 < rows["terminated"].float().mean() < 0.9
    assert (rows["actions"].abs() <= 1).all()


def test_the_first_iteration_begins_with_random_episodes_of_every_task():
    agent, distribution = make_agent(initial_episodes=2), family()
    first, second = improve(agent, distribution, 2)
    trial = 3 * 2 * 2 * 5
    assert second["env_steps"] == trial
    assert first["env_steps"] == trial + 2 * 3 * 2 * 2 * 5  # 5 tasks are 2 rounds of 3
    assert (agent.replay.counts() >= 2 * 2 * 5).all()


def test_rewards_are_in_units_of_those_of_the_random_steps():
    agent = make_agent()
    improve(agent, family(), 2)
    random_steps = 2 * 3 * 2 * 5
    unit = agent.replay.buffer.rows(0, random_steps)["rewards"].square().mean().sqrt()
    batch = agent.replay.sample(torch.tensor([0, 3]), 4, torch.Generator())
    z = torch.zeros(2, 5)
    torch.testing.assert_close(agent.network.transitions(batch, z).rewards, batch["rewards"].flatten() / unit)
    raw = make_agent(normalize_rewards=False)
    improve(raw, family())
    assert torch.equal(raw.network.transitions(batch, z).rewards, batch["rewards"].flatten())


def sparse_agent(**options):
    distribution = metarl.make("SparsePointNavigation-v0", horizon=15, goal_radius=0.7)
    return make_agent(distribution=distribution, dense_rewards=True, **options), distribution


def test_sac_learns_from_dense_rewards_and_z_is_inferred_from_sparse_ones():
    agent, distribution = sparse_agent(normalize_rewards=False)
    improve(agent, distribution)
    rows = agent.replay.buffer.rows(0, agent.replay.buffer.count)
    goals = agent.train_tasks.tasks.parameters["goal"][rows["task"]]
    distance = torch.linalg.vector_norm(rows["next_observations"] - goals, dim=-1)
    torch.testing.assert_close(rows["dense_rewards"], -distance)
    torch.testing.assert_close(rows["rewards"], torch.where(distance <= 0.7, 1 - distance, 0.0))
    assert rows["rewards"].any()
    batch = agent.replay.sample(torch.arange(5), 8, torch.Generator().manual_seed(0))
    z = torch.zeros(5, 5)
    assert torch.equal(agent.network.transitions(batch, z).rewards, batch["dense_rewards"].flatten())
    blank = agent.network.infer({**batch, "dense_rewards": batch["dense_rewards"] + 1})
    assert all(torch.equal(*pair) for pair in zip(blank, agent.network.infer(batch), strict=True))
    assert not torch.equal(agent.network.infer({**batch, "rewards": batch["rewards"] + 1})[0], blank[0])


def test_dense_rewards_have_units_of_their_own():
    agent, distribution = sparse_agent()
    improve(agent, distribution)
    start = agent.replay.buffer.rows(0, 2 * 3 * 2 * 15)["dense_rewards"]  # the random steps: 5 tasks are 2 rounds of 3
    batch = agent.replay.sample(torch.arange(5), 8, torch.Generator().manual_seed(0))
    expected = batch["dense_rewards"].flatten() / start.square().mean().sqrt()
    torch.testing.assert_close(agent.network.transitions(batch, torch.zeros(5, 5)).rewards, expected)


def test_dense_rewards_of_a_family_that_has_none_are_refused():
    with pytest.raises(metarl.UsageError, match="dense_rewards: the family has none"):
        make_agent(dense_rewards=True)


def test_contexts_are_drawn_from_the_last_transitions_of_a_task():
    generator = torch.Generator().manual_seed(0)
    agent = make_agent(context_window=1, context_size=7)
    improve(agent, family())
    context = agent.replay.sample(torch.arange(5), 7, generator, recent=1)
    assert (context["observations"] == context["observations"][:, :1]).all()
    with pytest.raises(metarl.UsageError, match="context_window"):
        PEARLConfig(context_window=0)


def test_a_belief_is_the_product_of_the_factors_of_the_transitions_seen():
    agent, env = make_agent(), started(family())
    policy = PEARLPolicy(agent.network, torch.Generator().manual_seed(0), explores=True)
    trajectories = metarl.collect(env, policy, 5, seed=0)
    network = agent.network
    with torch.no_grad():
        factors = network.factors(
            trajectories.observations,
            network.head.from_box(trajectories.actions),
            trajectories.rewards,
            trajectories.final_observations,
        )
    shuffled = torch.randperm(5)
    for sums, own in zip(policy.belief, factors, strict=True):
        assert sums.shape == (3, 2, 5)  # whatever the number of transitions
        torch.testing.assert_close(sums, own[shuffled].sum(0))


def test_inactive_environments_learn_nothing():
    agent, env = make_agent(), started(family())
    policy = PEARLPolicy(agent.network, torch.Generator().manual_seed(0))
    policy.act(torch.zeros(3, 2, 2))
    active = torch.tensor([[True, False]]).expand(3, 2)
    flags = torch.zeros(3, 2, dtype=torch.bool)
    z = policy.z
    o, ones = torch.zeros(3, 2, 2), torch.ones(3, 2)
    policy.observe(metarl.Transition(o, torch.zeros(3, 2, 2), ones, flags, ~flags, o, active))
    assert (policy.belief[0] > 0).all(-1).equal(active)
    policy.act(o)
    assert (policy.z != z).all(-1).equal(active)  # their episodes have ended, but not that of the others
    env.close()


class Recording(PEARLPolicy):
    """Records z."""

    def act(self, observations):
        step = super().act(observations)
        return metarl.PolicyStep(step.actions, extras={"z": self.z})


def test_z_is_drawn_at_the_start_of_an_episode_and_held_through_it():
    agent, env = make_agent(), started(family())
    z = metarl.collect(env, Recording(agent.network, torch.Generator().manual_seed(0)), 15, seed=0).extras["z"]
    for episode in range(3):
        own = z[5 * episode : 5 * episode + 5]
        assert torch.equal(own, own[:1].expand_as(own))
    assert (z[0] != z[5]).all()
    assert (z[5] != z[10]).all()


def test_z_is_drawn_anew_within_an_episode_if_that_is_asked_for():
    """Episodes of 5 steps: z acts for the steps 0 and 1, 2 and 3, and 4; then the next episode begins."""
    agent, env = make_agent(), started(family())
    policy = Recording(agent.network, torch.Generator().manual_seed(0), resample_steps=2)
    for steps in (12, 6):  # the first rollout is cut after two steps of its third episode
        z = metarl.collect(env, policy, steps, seed=0).extras["z"]
        changes = (z[1:] != z[:-1]).any(-1)
        expected = torch.tensor([t % 5 in (0, 2, 4) for t in range(1, steps)])
        assert torch.equal(changes, expected[:, None, None].expand_as(changes))


def test_training_and_adaptation_draw_z_as_often_as_the_option_says():
    agent, env = make_agent(resample_steps=2), started(family())
    assert agent.adapt(env, 1).resample_steps == 2
    assert make_agent().adapt(env, 1).resample_steps is None
    with pytest.raises(metarl.UsageError, match="resample_steps"):
        make_agent(resample_steps=0)


def test_the_first_z_of_a_trial_is_from_the_prior_whatever_was_before():
    agent = make_agent()
    improve(agent, family())
    drawn = []
    for task in (0, 1):
        env = started(family(), 300)
        env.set_tasks(family().sample(300, split="test", seed=task))
        policy = PEARLPolicy(agent.network, torch.Generator().manual_seed(1))
        metarl.collect(env, policy, 5, seed=task)
        mask = torch.ones(300, 2, dtype=torch.bool)
        mask[0, 0] = False
        policy.begin_trial(mask)
        assert policy.belief[0][0, 0].all()
        policy.act(torch.zeros(300, 2, 2))
        drawn.append(policy.z[mask])
    assert torch.equal(*drawn)
    assert drawn[0].mean(0).abs().max() < 0.2
    assert (drawn[0].std(0) - 1).abs().max() < 0.15


def test_the_encoder_learns_from_the_critics_loss_and_the_divergence_alone():
    agent = make_agent(kl_weight=0.3, normalize_rewards=False)
    improve(agent, family())
    generator = torch.Generator().manual_seed(7)
    tasks = torch.tensor([0, 3, 1])
    context, batch = (agent.replay.sample(tasks, n, generator) for n in (6, 8))
    reference = copy.deepcopy(agent)
    network, noise = reference.network, torch.Generator().manual_seed(8)
    agent.learn(context, batch, torch.Generator().manual_seed(8))
    factors = network.factors(*(context[n] for n in ("observations", "actions", "rewards", "next_observations")))
    precision, weighted = (sums.sum(1) for sums in factors)
    belief = Normal(weighted / precision, precision.rsqrt())
    divergence = kl_divergence(belief, Normal(0.0, 1.0)).sum(-1).mean()
    z = belief.mean + belief.stddev * torch.empty(3, 5).normal_(generator=noise)
    each = z[:, None].expand(3, 8, 5).flatten(0, 1)
    o, o2 = (torch.cat([batch[n].flatten(0, 1), each], -1) for n in ("observations", "next_observations"))
    rewards, terminated = batch["rewards"].flatten(), batch["terminated"].flatten()
    actions = batch["actions"].flatten(0, 1)
    targets = reference.sac.targets(Transitions(o, actions, rewards, terminated, o2.detach()), noise)
    loss = (network.sac.values(o, actions) - targets).square().mean(1).sum() + 0.3 * divergence
    expected = torch.autograd.grad(loss, list(network.encoder.parameters()))
    found = [parameter.grad for parameter in agent.network.encoder.parameters()]
    torch.testing.assert_close(found, list(expected))


def test_a_fork_is_independent_and_training_changes_no_adapted_policy():
    agent, env = make_agent(), started(family())
    policy = agent.adapt(env, 1, seed=1)
    belief = [sums.clone() for sums in policy.belief]
    first = metarl.collect(env, policy.fork(), 10, seed=2).actions
    improve(agent, family())
    assert torch.equal(metarl.collect(env, policy.fork(), 10, seed=2).actions, first)
    assert all(torch.equal(*pair) for pair in zip(policy.belief, belief, strict=True))


def test_adaptation_goes_on_from_a_policy():
    agent, env = make_agent(), started(family())
    once = agent.adapt(env, 1, seed=1)
    twice = agent.adapt(env, 1, seed=2, policy=once)
    assert (twice.belief[0] > once.belief[0]).all()
    same = agent.adapt(env, 0, seed=3, policy=once)
    assert torch.equal(same.belief[0], once.belief[0])
    assert agent.stages() == [0, 1, 2]
    assert agent.stages(4) == [0, 1, 2, 3, 4]


def test_a_family_that_lists_few_tasks_is_trained_on_all_of_them():
    distribution = metarl.make("HalfCheetahDir-v0")
    assert len(make_agent(distribution=distribution).task_source(distribution, seed=0).tasks) == 2


def run_config(output, env="PointNavigation-v0", env_options=None, iterations=4, **options):
    env_options = {"horizon": 5} if env_options is None else env_options
    options = TINY | options
    return metarl.TrainConfig("pearl", env, env_options, options, iterations, checkpoint_every=2, output=output)


@pytest.mark.parametrize(("temperature", "capacity"), [(1.0, 10_000), (None, 150)])
def test_a_run_stopped_in_the_middle_goes_on_bit_for_bit(temperature, capacity, tmp_path, monkeypatch):
    options = {"temperature": temperature, "replay_capacity": capacity}  # the second buffer drops rows
    straight = metarl.train(run_config(tmp_path / "straight", **options), progress=False)
    real, calls = PEARL.improve, []

    def stopped(self, env, *, seed):
        metrics = real(self, env, seed=seed)
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt  # after the buffer has grown, before the iteration counts
        return metrics

    monkeypatch.setattr(PEARL, "improve", stopped)
    with pytest.raises(KeyboardInterrupt):
        metarl.train(run_config(tmp_path / "stopped", **options), progress=False)
    monkeypatch.setattr(PEARL, "improve", real)
    metarl.resume(tmp_path / "stopped", progress=False)
    expected, found = (load_checkpoint(run) for run in (straight, tmp_path / "stopped"))
    assert expected.tensors.keys() == found.tensors.keys()
    assert all(torch.equal(expected.tensors[name], found.tensors[name]) for name in expected.tensors)
    assert expected.buffers == found.buffers
    timing = {"wall_seconds", "steps_per_second"}
    rows = [
        [{name: value for name, value in row.items() if name not in timing} for row in read_metrics(run)]
        for run in (straight, tmp_path / "stopped")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("env", "options"),
    [
        pytest.param("PointNavigation-v0", {"horizon": 5}, id="native"),
        pytest.param("HalfCheetahVel-v0", {"horizon": 5}, id="locomotion"),
        pytest.param("PendulumParams-v0", {"vectorization": "sync"}, id="gymnasium", marks=pytest.mark.slow),
        pytest.param("ML1-reach-v3", {"horizon": 5}, id="metaworld", marks=pytest.mark.slow),
    ],
)
def test_it_trains_resumes_evaluates_and_adapts(env, options, tmp_path):
    run = metarl.train(run_config(tmp_path / "run", env, options, 1), progress=False)
    assert metarl.resume(run, progress=False) == run
    opened = metarl.load_run(run)
    evaluation = metarl.evaluate(opened.agent, opened.distribution, num_tasks=3, episodes=2)
    assert evaluation.returns.shape == (3, 3)
    assert evaluation.returns.isfinite().all()
    with_env = opened.distribution.make_env(2, 1)
    with_env.set_tasks(opened.distribution.sample(2, split="test", seed=3))
    policy = opened.agent.adapt(with_env, 1)
    assert metarl.collect(with_env, policy, episodes=1).rewards.isfinite().all()
    with_env.close()


@pytest.mark.slow
def test_it_learns_to_find_goals_that_training_never_saw():
    distribution = family(10)
    options = {"num_tasks": 10, "train_tasks": 40, "hidden": (64, 64), "encoder_hidden": (64, 64), "updates": 100}
    sizes = {"meta_batch": 10, "batch_size": 64, "context_size": 20, "discount": 0.9, "temperature": 0.1}
    agent = make_agent(distribution=distribution, **options, **sizes, lr=2e-3, polyak=0.02)
    before = metarl.evaluate(agent, distribution, num_tasks=40, episodes=2, seed=1).returns.mean(0)
    improve(agent, distribution, 12)
    after = metarl.evaluate(agent, distribution, num_tasks=40, episodes=2, seed=1).returns.mean(0)
    assert after[2] > before[2] + 0.1  # untrained, it stays near the start, which is not bad
    assert after[2] > after[0] + 0.4


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ("Bandit-v0", r"pearl acts in boxes .* not in Discrete\(5\): use rl2, maml or varibad"),
        ("TabularMDP-v0", "use rl2, maml or varibad"),
    ],
)
def test_discrete_actions_are_refused_in_one_line(env, message):
    with pytest.raises(metarl.UsageError, match=message) as error:
        make_agent(distribution=metarl.make(env))
    assert "\n" not in str(error.value)


def test_pictures_are_refused_in_one_line():
    spec = metarl.EnvSpec(Box(0, 255, (8, 8, 3), "uint8"), Box(-1, 1, (2,)), horizon=5)
    with pytest.raises(metarl.UsageError, match="pearl reads float32 vectors"):
        PEARL(PEARLConfig(), spec)


def test_tasks_without_ids_are_refused():
    agent, env = make_agent(), started(family())
    with pytest.raises(metarl.UsageError, match="task_source"):
        agent.improve(env, seed=0)
    agent.task_source(family(), seed=0)
    agent.config = PEARLConfig(**TINY)
    with pytest.raises(metarl.UsageError, match="ids"):
        agent.improve(env, seed=0)


def test_seeds_make_networks():
    one, same, other = (make_agent(seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.weights.0"], other["encoder.weights.0"])


def test_a_buffer_that_cannot_hold_the_random_episodes_of_all_tasks_is_refused():
    with pytest.raises(metarl.UsageError, match=r"replay_capacity of 9 does not hold the random episodes of 5 tasks"):
        improve(make_agent(replay_capacity=9), family())
    improve(make_agent(replay_capacity=90), family())


def test_random_steps_that_are_all_faults_are_named():
    class Broken(PointNavigation):
        def transition(self, state, action, streams, task):
            state, reward, terminated = super().transition(state, action, streams, task)
            return state, reward * torch.nan, terminated

    distribution = Broken(horizon=5)
    with pytest.raises(metarl.errors.EnvironmentFault, match="pearl has nothing to learn from: every random step"):
        improve(make_agent(distribution=distribution), distribution)
