from metarl.agents.sb3_policy import from_sb3 as from_sb3
from metarl.api import *
from metarl.envs.gymnasium_env import GymnasiumDistribution as GymnasiumDistribution
from metarl.gymnasium_adapter import to_gymnasium as to_gymnasium
from metarl.sb3 import to_sb3 as to_sb3
from metarl.torchrl_adapter import to_torchrl as to_torchrl
