"""Every registered preset can be trained as it stands, and says where it comes from and what to expect."""

from collections import Counter

import pytest

import metarl
from metarl.registry import agent_class, list_agents, presets_of

PRESETS = [
    pytest.param(agent, preset, id=f"{agent}-{preset.env}-{preset.name}")
    for agent in list_agents()
    for preset in presets_of(agent)
]


@pytest.mark.parametrize(("agent", "preset"), PRESETS)
def test_a_preset_is_an_experiment(agent, preset):
    assert type(preset.config) is agent_class(agent).config_class
    experiment = metarl.preset(agent, preset.env, preset.name).resolve()
    assert experiment.options == preset.config
    assert experiment.distribution.origin.options == dict(preset.env_options)
    assert (experiment.config.iterations, experiment.config.steps) == (preset.iterations, preset.steps)
    assert preset.iterations or preset.steps, "nobody should have to know when to stop"


@pytest.mark.parametrize(("agent", "preset"), PRESETS)
def test_a_preset_says_where_it_is_from_and_what_to_expect(agent, preset):
    assert preset.source.strip()
    assert any(character.isdigit() for character in preset.expected), "in numbers"


def test_a_name_means_one_preset():
    names = Counter((agent, preset.env, preset.name) for agent, preset in (param.values for param in PRESETS))
    assert names
    assert max(names.values()) == 1


def test_rl2_and_maml_have_a_preset_for_a_gpu():
    assert {agent for agent in ("rl2", "maml") if any(preset.name == "gpu" for preset in presets_of(agent))} == {
        "rl2",
        "maml",
    }
