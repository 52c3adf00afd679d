"""What a run folder keeps of a family of Gymnasium environments, and what it says if that has changed."""

import functools

import gymnasium as gym
import numpy as np
import pytest
import yaml
from plain import Doubled, Plain, Told

import metarl
from metarl.envs.gymnasium_env import GymnasiumDistribution
from metarl.envs.gymnasium_traits import name_of, readable
from metarl.experiment.fingerprint import differences, fingerprint


class Other(Plain):
    """The same spaces as its parent."""


def nothing(env, task):
    pass


def something(env, task):
    pass


def family(env=Plain, **options):
    defaults = {"parameters": {"number": (0.0, 9.0)}, "apply": nothing, "horizon": 5, "vectorization": "sync"}
    return GymnasiumDistribution("Traits-v0", env, **defaults | options)


def test_they_are_plain_and_readable():
    spec = gym.spec("CartPole-v1")
    made = family(spec, wrappers=[Doubled], env_kwargs={"sutton_barto_reward": np.True_})
    assert made.traits == {
        "environment": "CartPole-v1",
        "env_kwargs": {"sutton_barto_reward": True},
        "wrappers": ["Doubled"],
        "apply": "nothing",
        "reset_options": {},
        "success_key": None,
    }
    mine = fingerprint(family(Told, reset_options={"a": (1, np.float32(0.5))}, has_success=True))
    assert (mine["environment"], mine["reset_options"]) == ("Told", {"a": [1, 0.5]})
    assert mine["success_key"] == "success or is_success"
    assert yaml.safe_load(yaml.safe_dump(mine)) == mine
    assert "traits" not in mine


def test_anything_has_a_name():
    class Local:
        def method(self, env, task): ...

    assert [name_of(thing) for thing in (Local, Local(), Local().method, len, lambda: 1)] == [
        "Local",
        "Local",
        "Local.method",
        "len",
        "<lambda>",
    ]
    assert name_of(functools.partial(Plain, 3, limit=np.int64(4))) == "Plain(3, limit=4)"
    assert readable({1: [np.zeros(2), Local, np.nan, None]}) == {"1": [[0.0, 0.0], "Local", "nan", None]}
    large = np.arange(100.0)
    assert readable(large).startswith("float64 [100] sha256 ")
    assert readable(large) == readable(large.copy()) != readable(large + 1)


def begun(path):
    """A run of two iterations as it was after the first."""
    run = metarl.train(metarl.TrainConfig("random", family(), iterations=2, output=path), progress=False)
    for file in run.glob("checkpoints/iteration-000002.*"):
        file.unlink()
    return run


CHANGES = {
    "class": ({"env": Other}, "environment Other instead of Plain"),
    "arguments": ({"env_kwargs": {"limit": 7}}, "env kwargs {'limit': 7} instead of {}"),
    "wrappers": ({"wrappers": [Doubled]}, "wrappers ['Doubled'] instead of []"),
    "apply": ({"apply": something}, "apply something instead of nothing"),
    "reset options": ({"reset_options": {"a": 1}}, "reset options {'a': 1} instead of {}"),
    "success": ({"success_key": "solved"}, "success key solved instead of None"),
}


@pytest.mark.parametrize(("options", "words"), CHANGES.values(), ids=CHANGES.keys())
def test_what_changes_is_said(options, words):
    assert words in differences(fingerprint(family()), fingerprint(family(**options))).values()
    assert differences(fingerprint(family(**options)), fingerprint(family(**options))) == {}


def test_a_run_does_not_go_on_with_another_class_or_wrapper(tmp_path):
    run = begun(tmp_path / "run")
    for options, words in (CHANGES["class"], CHANGES["wrappers"]):
        with pytest.raises(metarl.UsageError) as caught:
            metarl.resume(run, env=family(**options))
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    opened = metarl.load_run(run, env=family())
    assert opened.differences(family(Other)) == ["environment Other instead of Plain"]


def test_a_run_of_a_version_without_them_goes_on(tmp_path):
    run = begun(tmp_path / "run")
    entries = yaml.safe_load((run / "config.yaml").read_text())
    for name in family().traits:
        del entries["fingerprint"][name]
    (run / "config.yaml").write_text(yaml.safe_dump(entries))
    metarl.resume(run, env=family(Other), progress=False)
