"""The built-in agents. The entry-point group `metarl.plugins` calls `register`."""

from metarl.registry import register_agent, register_presets

AGENTS = {
    "maml": "maml:MAML",
    "reptile": "reptile:Reptile",
    "rl2": "rl2:RL2",
    "varibad": "varibad:VariBAD",
    "pearl": "pearl:PEARL",
    "random": "random:RandomAgent",
    "multitask": "multitask:Multitask",
    "oracle": "multitask:Oracle",
    "gittins": "bandits:Gittins",
    "ucb1": "bandits:UCB1",
    "thompson": "bandits:Thompson",
    "greedy": "bandits:Greedy",
    "psrl": "psrl:PSRL",
    "sb3-ppo": "sb3:SB3PPO",
    "sb3-sac": "sb3:SB3SAC",
    "sb3-recurrent-ppo": "sb3:SB3RecurrentPPO",
}
"""Id: module of this package, and class."""

PRESETS = {
    "maml": "maml:PRESETS",
    "reptile": "reptile:PRESETS",
    "rl2": "rl2:PRESETS",
    "varibad": "varibad:PRESETS",
    "pearl": "pearl:PRESETS",
    "multitask": "multitask:MULTITASK",
    "oracle": "multitask:ORACLE",
    "gittins": "bandits:GITTINS",
    "ucb1": "bandits:UCB1",
    "thompson": "bandits:THOMPSON",
    "greedy": "bandits:GREEDY",
    "psrl": "bandits:PSRL",
    "sb3-ppo": "sb3:PPO",
}
"""Id of an agent: module of `metarl.agents.presets`, and tuple."""


def register() -> None:
    """Registers every built-in agent, and its presets."""
    for agent, place in AGENTS.items():
        register_agent(agent, f"metarl.agents.{place}")
    for agent, place in PRESETS.items():
        register_presets(agent, f"metarl.agents.presets.{place}")
