"""The presets of RL²: each names a family and options that exist, and makes an agent."""

import dataclasses

import pytest

import metarl
from metarl.agents.presets.rl2 import PRESETS
from metarl.agents.rl2 import RL2


def test_no_two_presets_of_a_family_share_a_name():
    names = [(preset.env, preset.name) for preset in PRESETS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: f"{preset.env}-{preset.name}")
def test_a_preset_makes_an_agent(preset):
    distribution = metarl.make(preset.env, **preset.env_options)
    agent = RL2(dataclasses.replace(preset.config), metarl.EnvSpec.of(distribution), seed=0)
    assert (preset.iterations is None) != (preset.steps is None)
    assert agent.config.num_tasks >= agent.config.minibatches
