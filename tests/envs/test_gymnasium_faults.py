"""Numbers that are not finite, and classes that break Gymnasium's interface: found where they enter, and named."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from plain import BadStarts, Noisy, Told

from metarl import Tasks, UsageError
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.errors import EnvironmentFault

B, STEPS, BAD = 6, 400, 200
VECTORIZATIONS = [{"vectorization": "sync"}, {"workers": 2}]
WAYS = ["sync", "async"]


def family(env, **options):
    defaults = {"parameters": {"number": (0.0, 9.0)}, "apply": lambda env, task: None, "horizon": 5}
    return GymnasiumDistribution("Faulty-v0", env, **defaults | options)


def opened(distribution, num_envs=1, seed=0):
    env = distribution.make_env(num_envs)
    env.set_tasks(distribution.sample(num_envs, seed=0))
    env.reset(seed=seed)
    return env


# Bad numbers ----------------------------------------------------------------------------------------------------------


def plans(count):
    """For each environment: in which step of its life what goes bad. No two in a row, so that each is one fault."""
    rng, found = np.random.default_rng(0), [{} for _ in range(B)]
    while sum(map(len, found)) < count:
        i, t = int(rng.integers(B - 1)), int(rng.integers(1, STEPS + 1))  # the last environment stays as it is
        if not {t - 1, t, t + 1} & found[i].keys():
            what = [np.nan, np.inf, -np.inf, 1e300][rng.integers(4)]
            found[i][t] = (["reward", "observation"][rng.integers(2)], what)
    return found


def placed(plan, **options):
    def apply(env, task):
        env.unwrapped.plan = plan[round(task["number"])]

    env = family(Noisy, apply=apply, horizon=9, has_success=True, **options).make_env(B)
    env.set_tasks(Tasks({"number": torch.arange(B, dtype=torch.float64)}))
    return env


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=WAYS)
def test_bad_numbers_end_their_episode_and_nobody_else_notices(options):
    """Beside a hand-written loop over single environments."""
    plan = plans(BAD)
    env = placed(plan, **options)
    before, _ = env.reset(seed=4)
    alone = [Noisy() for _ in range(B)]
    rows = [one.reset(seed=4 + i)[0] for i, one in enumerate(alone)]
    clock, faults = [0] * B, 0
    for t in range(1, STEPS + 1):
        actions = torch.full((B, 1), 0.1)
        observations, rewards, terminated, truncated, info = env.step(actions)
        for i, one in enumerate(alone):
            fine, reward, end, *_ = one.step(actions[i].numpy())
            clock[i] += 1
            bad, late = t in plan[i], clock[i] == 9
            final = rows[i] if bad else fine
            expected = [0.0 if bad else np.float32(reward), end and not bad, bad or late, bad]
            found = [float(rewards[i]), bool(terminated[i]), bool(truncated[i]), bool(info["fault"][i])]
            assert found == expected
            assert bool(info["_final_obs"][i]) == (bad or end or late)
            assert bool(info["success"][i]) == (reward > 0 and not bad)
            assert np.array_equal(info["final_obs"][i].numpy(), np.float32(final))
            if bad or end or late:
                fine, clock[i] = one.reset()[0], 0
            rows[i] = fine
            assert np.array_equal(observations[i].numpy(), np.float32(fine))
            faults += bad
        assert torch.equal(info["final_obs"][info["fault"]], before[info["fault"]])
        before = observations
    assert faults == BAD
    env.close()


def test_a_bad_start_is_tried_once_more():
    env = opened(family(BadStarts, env_kwargs={"bad": 1}, vectorization="sync"))
    observations, _ = env.reset()
    assert bool(observations.isfinite().all())


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=WAYS)
def test_two_bad_starts_are_a_fault_of_the_environment(options):
    with pytest.raises(
        EnvironmentFault,
        match=r"Faulty-v0: BadStarts.reset gave an observation that is not finite.*environment 0, task 0",
    ):
        opened(family(BadStarts, env_kwargs={"bad": 2}, **options))


def test_a_restored_state_remembers_what_a_fault_repeats():
    def write(env, state):
        env.unwrapped.place, env.unwrapped.time = state["place"], int(state["time"])

    access = (lambda env: {"place": env.unwrapped.place, "time": env.unwrapped.time}, write)
    wrapped = family(
        lambda: gym.wrappers.DtypeObservation(Noisy(), np.float64), state=access, vectorization="sync", has_success=True
    )
    env = opened(wrapped)
    last = env.step(torch.zeros(1, 1))[0]
    state = env.get_state()
    env.step(torch.zeros(1, 1))
    env.set_state(state)
    noisy = env._pool._chunk._envs[0].unwrapped
    noisy.plan = {noisy.life + 1: ("reward", np.nan)}
    assert torch.equal(env.step(torch.zeros(1, 1))[4]["final_obs"], last)


# Wrong classes --------------------------------------------------------------------------------------------------------


class Right(gym.Env):
    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Discrete(2)
    answer = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3, np.float32), {}

    def step(self, action):
        right = (np.ones(3, np.float32), 1.0, False, False, {})
        return right if self.answer is None else self.answer


def answering(answer):
    return type("Wrong", (Right,), {"answer": answer})


def take(env):
    return env.step(torch.zeros(env.num_envs, dtype=torch.int64))


GOOD = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((GOOD, 1.0, False, {}), r"step returned a tuple of 4 instead of \(observation, .*gym before 0.26"),
        (GOOD, r"step returned an array of float32 \[3\] instead of"),
        ((GOOD[:1], 1.0, False, False, {}), r"step returned an array of float32 \[1\] as observation"),
        ((5.0, 1.0, False, False, {}), r"step returned 5.0 as observation"),
        ((GOOD, np.ones(1), False, False, {}), r"step returned an array of float64 \[1\] as reward"),
        ((GOOD, np.ones(2), False, False, {}), r"float64 \[2\] as reward"),
        ((GOOD, None, False, False, {}), "None as reward"),
        ((GOOD, "1.0", False, False, {}), "'1.0' as reward"),
        ((GOOD, 1j, False, False, {}), "1j as reward"),
        ((GOOD, 1.0, None, False, {}), "None as terminated, which has to be True or False"),
        ((GOOD, 1.0, False, {}, {}), "an empty dict as truncated"),
        ((GOOD, 1.0, 0.5, False, {}), "0.5 as terminated"),
        ((GOOD, 1.0, np.array([False]), False, {}), r"bool \[1\] as terminated"),
        ((GOOD, 1.0, False, False, None), "None as info, which has to be a dict"),
    ],
)
def test_a_wrong_step_is_named(answer, message):
    env = opened(family(answering(answer), vectorization="sync"))
    with pytest.raises(UsageError, match=rf"^Faulty-v0: Wrong\..*{message}") as caught:
        take(env)
    assert str(caught.value).endswith("(environment 0, task 0)")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("reward", "flag"),
    [(2, np.bool_(True)), (np.float32(2), 1), (np.array(2.0), np.array(True)), (torch.tensor(2.0), torch.tensor(True))],
)
def test_numbers_and_flags_may_be_numpys_or_torchs(reward, flag):
    _, rewards, terminated, *_ = take(opened(family(answering((GOOD, reward, flag, False, {})), vectorization="sync")))
    assert (rewards.tolist(), terminated.tolist()) == ([2.0], [True])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (GOOD, r"reset returned an array of float32 \[3\] instead of \(observation, info\)"),
        (np.ones(2), r"reset returned an array of float64 \[2\] instead"),
        ((GOOD, GOOD, {}), "reset returned a tuple of 3 instead"),
        ((GOOD, GOOD), r"reset returned an array of float32 \[3\] as info, which has to be a dict"),
        ((GOOD, None), "reset returned None as info, which has to be a dict: return observation, {}"),
        ((GOOD[:2], {}), r"reset returned an array of float32 \[2\] as observation"),
    ],
)
def test_a_wrong_reset_is_named(answer, message):
    wrong = type("Wrong", (Right,), {"reset": lambda self, *, seed=None, options=None: answer})
    with pytest.raises(UsageError, match=f"^Faulty-v0: Wrong.{message}"):
        opened(family(wrong, vectorization="sync"))


def test_a_reset_without_seed_is_refused_at_once():
    wrong = type("Wrong", (Right,), {"reset": lambda self: (GOOD, {})})
    with pytest.raises(UsageError, match=r"^Faulty-v0: Wrong.reset takes no seed: define it as reset\(self, \*, seed"):
        family(wrong)
    with pytest.raises(UsageError, match="takes no seed"):  # unseen before workers build it
        family(wrong, spaces=(Right.observation_space, Right.action_space), vectorization="sync").make_env(1)


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=WAYS)
def test_the_culprit_among_many_is_named(options):
    class Third(Noisy):
        kind = 0

        def step(self, action):
            if self.kind == 2:
                raise KeyError("no such joint")
            return super().step(action)[: 4 if self.kind == 3 else 5]

    distribution = family(
        Third, apply=lambda env, task: setattr(env.unwrapped, "kind", round(task["number"])), **options
    )
    note = "raised by Third.step (environment 2, task 1 of Faulty-v0: {'number': 2.0}), in step 1 of an episode"
    for kind, error, message in (
        (2, KeyError, "no such joint"),
        (3, UsageError, r"Third.step .* \(environment 2, task 1"),
    ):
        env = distribution.make_env(2, 2)
        env.set_tasks(Tasks({"number": torch.tensor([0.0, kind], dtype=torch.float64)}))
        env.reset(seed=0)
        with pytest.raises(error, match=message) as caught:
            env.step(torch.zeros(4, 1))
        assert (note in getattr(caught.value, "__notes__", [])) == (error is KeyError)
        env.close()


# Success and options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "options", "expected"),
    [
        ({"success": True}, {"has_success": True}, True),
        ({"is_success": np.float32(1.0)}, {"has_success": True}, True),
        ({"is_success": np.float32(0.0)}, {"has_success": True}, False),
        ({"solved": np.bool_(True)}, {"success_key": "solved"}, True),
        ({"success": 1.0, "solved": False}, {"success_key": "solved"}, False),
        ({"success": 1}, {"has_success": True}, True),
        ({"success": torch.tensor(True)}, {"has_success": True}, True),
    ],
)
def test_success_is_found_under_its_name(info, options, expected):
    env = opened(family(answering((GOOD, 1.0, False, False, info)), vectorization="sync", **options))
    assert env.distribution.has_success
    assert take(env)[4]["success"].tolist() == [expected]
    assert env.success_seen


@pytest.mark.parametrize(
    ("success", "words"),
    [
        ("yes", "'yes'"),
        (np.nan, "nan"),
        (0.3, "0.3"),
        (np.float32(0.3), r"np.float32\(0.3\)"),
        (2, "2"),
        (-1, "-1"),
        (None, "None"),
        (np.ones(1), r"an array of float64 \[1\]"),
    ],
)
def test_a_success_that_is_neither_true_nor_false_is_refused(success, words):
    wrong = answering((GOOD, 1.0, False, False, {"success": success}))
    env = opened(family(wrong, vectorization="sync", has_success=True))
    with pytest.raises(UsageError, match=rf"Wrong.step returned {words} as info\['success'\], which has to be True or"):
        take(env)
    assert "success" not in take(opened(family(wrong, vectorization="sync")))[4], "not read, and no warning"


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=WAYS)
@pytest.mark.parametrize("key", ["success", "is_success"])
def test_success_that_nobody_reads_is_warned_of_once_and_fails_the_contract(key, options):
    from metarl.contract import check_distribution

    class Silent(Right):
        def step(self, action):
            return GOOD, 1.0, False, False, {key: False}

    distribution = family(Silent, **options)
    env = opened(distribution, 2)
    with pytest.warns(UserWarning, match=r"Faulty-v0: info tells success .* not read: say has_success=True"):
        take(env)
    take(env)
    env.close()
    with (
        pytest.warns(UserWarning, match="say has_success"),
        pytest.raises(AssertionError, match="say has_success=True"),
    ):
        check_distribution(distribution)


def test_success_that_nobody_tells_is_warned_of_once_and_fails_the_contract():
    from metarl.contract import check_distribution

    distribution = family(Right, vectorization="sync", has_success=True)
    env = opened(distribution, 2)
    for _ in range(4):
        take(env)
    with pytest.warns(UserWarning, match=r"Faulty-v0: an episode ended and no info .* 'success' or 'is_success'"):
        take(env)
    for _ in range(10):
        take(env)
    assert not env.success_seen
    with pytest.warns(UserWarning, match="no info"), pytest.raises(AssertionError, match="whether they succeed, found"):
        check_distribution(distribution)


@pytest.mark.parametrize("options", VECTORIZATIONS, ids=WAYS)
def test_options_reach_the_resets_of_the_environments(options):
    env = opened(family(Told, reset_options={"a": 1, "b": 2}, **options), 2)
    assert env.reset()[0].tolist() == [[1, 2, 0]] * 2
    assert env.reset(seed=3, options={"b": 5, "c": 6})[0].tolist() == [[1, 5, 6]] * 2
    assert take(env)[0].tolist() == [[1, 2, 0]] * 2  # those of the reset are for that reset
    env.close()


def test_options_that_a_reset_does_not_take_are_refused():
    wrong = type("Wrong", (Right,), {"reset": lambda self, seed=None: (GOOD, {})})
    with pytest.raises(UsageError, match=r"Wrong\.reset takes no options"):
        family(wrong, reset_options={"a": 1})
    with pytest.raises(UsageError, match=r"Wrong\.reset takes no options"):
        opened(family(wrong, vectorization="sync")).reset(options={"a": 1})


def test_other_backends_take_no_options():
    import metarl

    distribution = metarl.make("PointNavigation-v0")
    env = distribution.make_env(1)
    env.set_tasks(distribution.sample(1, seed=0))
    env.reset(options={})
    with pytest.raises(UsageError, match="takes no reset options, got 'start'"):
        env.reset(options={"start": 1})
