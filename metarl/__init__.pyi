from metarl.api import *
from metarl.envs.gymnasium_env import GymnasiumDistribution as GymnasiumDistribution
