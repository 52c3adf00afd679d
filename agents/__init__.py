"""The built-in agents. The entry-point group `metarl.plugins` calls `register`."""

from metarl.registry import register_agent, register_presets


def register() -> None:
    """Registers every built-in agent, and the presets of each."""
    register_agent("random", "metarl.agents.random:RandomAgent")
    register_agent("maml", "metarl.agents.maml:MAML")
    register_agent("rl2", "metarl.agents.rl2:RL2")
    register_agent("sb3-ppo", "metarl.agents.sb3:SB3PPO")
    register_agent("sb3-sac", "metarl.agents.sb3:SB3SAC")
    register_agent("sb3-recurrent-ppo", "metarl.agents.sb3:SB3RecurrentPPO")
    register_presets("sb3-ppo", "metarl.agents.presets.sb3:PPO")
    for agent in ("maml", "rl2"):
        register_presets(agent, f"metarl.agents.presets.{agent}:PRESETS")
    register_agent("pearl", "metarl.agents.pearl:PEARL")
    register_presets("pearl", "metarl.agents.presets.pearl:PRESETS")
