"""The built-in agents. The entry-point group `metarl.plugins` calls `register`."""

from metarl.registry import register_agent, register_presets


def register() -> None:
    """Registers every built-in agent."""
    register_agent("random", "metarl.agents.random:RandomAgent")
    register_agent("maml", "metarl.agents.maml:MAML")
    register_agent("rl2", "metarl.agents.rl2:RL2")
    register_agent("varibad", "metarl.agents.varibad:VariBAD")
    register_presets("varibad", "metarl.agents.presets.varibad:PRESETS")
