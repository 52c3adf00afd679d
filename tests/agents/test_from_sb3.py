"""`metarl.from_sb3`: a model of Stable-Baselines3 as a policy, as SB3's own evaluation runs it."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

import metarl


def make_env(family, num_tasks=2, envs_per_task=3):
    env = family.make_env(num_tasks, envs_per_task)
    env.set_tasks(family.sample(num_tasks, seed=0))
    return env


@pytest.fixture
def family():
    return metarl.make("PointNavigation-v0", horizon=5)


def trained(family, *, wrap=lambda env: env, algorithm=PPO, **rescale):
    vec_env = wrap(metarl.to_sb3(make_env(family), **rescale))
    options = {"n_steps": 8, "batch_size": 48} if algorithm is PPO else {"learning_starts": 12}
    with torch.random.fork_rng():
        return algorithm("MlpPolicy", vec_env, seed=0, device="cpu", **options).learn(96)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
@pytest.mark.parametrize("rescale_actions", [False, True])
@pytest.mark.parametrize("wrap", [lambda env: env, VecNormalize])
def test_it_returns_what_sb3_measures(family, algorithm, rescale_actions, wrap):
    model = trained(family, wrap=wrap, algorithm=algorithm, rescale_actions=rescale_actions)
    env = make_env(family)
    ours = metarl.collect(env, metarl.from_sb3(model, family), episodes=1).episode_returns()
    vec_env = metarl.to_sb3(env, rescale_actions=rescale_actions)
    if wrap is VecNormalize:
        normalizer = model.get_vec_normalize_env()
        vec_env = VecNormalize(vec_env, training=False, norm_reward=False)
        vec_env.obs_rms = normalizer.obs_rms
    theirs, _ = evaluate_policy(model, vec_env, n_eval_episodes=6, return_episode_rewards=True)
    np.testing.assert_allclose(np.sort(ours.flatten()), np.sort(theirs), rtol=1e-5)


def test_a_policy_is_evaluated_as_it_stands(family):
    policy = metarl.from_sb3(trained(family), family)
    evaluation = metarl.evaluate(policy, family, num_tasks=5, seed=1)
    assert evaluation.returns.shape == (5, 1)
    assert (evaluation.episodes_used, evaluation.family, evaluation.horizon) == ([0], "PointNavigation-v0", 5)


def test_what_does_not_fit_is_refused_in_a_line(family):
    model, other = trained(family), metarl.make("Bandit-v0")
    stacked = trained(family, wrap=lambda env: VecFrameStack(env, 2))
    wider = metarl.make("SparsePointNavigation-v0")
    assert metarl.from_sb3(model, wider)
    for wrong, on, complaint in (
        (model, other, "has the observations"),
        (stacked, family, "has the observations"),
        (model, metarl.make("ML1-reach-v3"), "has the observations"),
        (object(), family, "takes a model of Stable-Baselines3"),
    ):
        with pytest.raises(metarl.UsageError, match=complaint):
            metarl.from_sb3(wrong, on)


def test_a_model_without_its_normalisation_is_refused(family, tmp_path):
    """SB3 saves a model without the statistics of its VecNormalize: it would act on observations it never learnt."""
    model = trained(family, wrap=VecNormalize)
    model.save(tmp_path / "model.zip")
    model.get_vec_normalize_env().save(tmp_path / "statistics.pkl")
    for env in (None, metarl.to_sb3(make_env(family))):
        with pytest.raises(metarl.UsageError, match=r"trained in VecNormalize.*PPO\.load\(FILE, env=VecNormalize"):
            metarl.from_sb3(PPO.load(tmp_path / "model.zip", env=env), family)
    normalized = VecNormalize.load(tmp_path / "statistics.pkl", metarl.to_sb3(make_env(family)))
    whole = metarl.from_sb3(PPO.load(tmp_path / "model.zip", env=normalized), family)
    both = [metarl.collect(make_env(family), p, episodes=1).actions for p in (whole, metarl.from_sb3(model, family))]
    assert torch.equal(*both)


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_a_model_that_was_not_normalised_is_taken_from_its_file(family, algorithm, tmp_path, recwarn):
    model = trained(family, algorithm=algorithm)
    model.save(tmp_path / "model.zip")
    again = algorithm.load(tmp_path / "model.zip", env=metarl.to_sb3(make_env(family)))
    both = [metarl.collect(make_env(family), metarl.from_sb3(m, family), episodes=1).actions for m in (model, again)]
    assert torch.equal(*both)
    assert not [warning for warning in recwarn if "VecNormalize" in str(warning.message)]


@pytest.mark.parametrize("wrap", [VecNormalize, lambda env: env], ids=["normalised", "plain"])
def test_an_off_policy_model_alone_does_not_show_if_it_was_normalised_and_is_refused(family, wrap, tmp_path):
    """It was warned of, and acted on observations that it never learnt from."""
    model = trained(family, algorithm=SAC, wrap=wrap)
    model.save(tmp_path / "model.zip")
    ways_out = r"if not, load it with SAC\.load\(FILE, env=metarl.*; if so, .* SAC\.load\(FILE, env=VecNormalize\.load"
    with pytest.raises(metarl.UsageError, match=ways_out):
        metarl.from_sb3(SAC.load(tmp_path / "model.zip"), family)
    env = metarl.to_sb3(make_env(family))
    if (normalizer := model.get_vec_normalize_env()) is not None:
        normalizer.save(tmp_path / "statistics.pkl")
        env = VecNormalize.load(tmp_path / "statistics.pkl", env)
    policies = [metarl.from_sb3(m, family) for m in (model, SAC.load(tmp_path / "model.zip", env=env))]
    assert torch.equal(*[metarl.collect(make_env(family), policy, episodes=1).actions for policy in policies])
