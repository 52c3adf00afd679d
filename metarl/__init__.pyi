from metarl.api import *
from metarl.envs.gymnasium_env import GymnasiumDistribution as GymnasiumDistribution
from metarl.sb3 import to_sb3 as to_sb3
