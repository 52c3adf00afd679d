"""The built-in agents. The entry-point group `metarl.plugins` calls `register`."""

from metarl.registry import register_agent, register_presets


def register() -> None:
    """Registers every built-in agent."""
    register_agent("random", "metarl.agents.random:RandomAgent")
    register_agent("maml", "metarl.agents.maml:MAML")
    register_agent("rl2", "metarl.agents.rl2:RL2")
    register_agent("reptile", "metarl.agents.reptile:Reptile")
    register_agent("multitask", "metarl.agents.multitask:Multitask")
    register_agent("oracle", "metarl.agents.multitask:Oracle")
    for bandit in ("Gittins", "UCB1", "Thompson", "Greedy"):
        register_agent(bandit.lower(), f"metarl.agents.bandits:{bandit}")
    register_agent("psrl", "metarl.agents.psrl:PSRL")
    register_presets("maml", "metarl.agents.presets.maml:PRESETS")
    register_presets("reptile", "metarl.agents.presets.reptile:PRESETS")
    for baseline in ("multitask", "oracle"):
        register_presets(baseline, f"metarl.agents.presets.multitask:{baseline.upper()}")
    for rule in ("gittins", "ucb1", "thompson", "greedy", "psrl"):
        register_presets(rule, f"metarl.agents.presets.bandits:{rule.upper()}")
