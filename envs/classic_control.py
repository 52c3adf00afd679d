"""Gymnasium's classic-control problems with other physics in every task."""

from collections.abc import Mapping

import gymnasium as gym

from metarl.envs.gymnasium_env import GymnasiumDistribution


class CartPoleParams(GymnasiumDistribution):
    """`CartPole-v1` whose pole differs from task to task.

    Observation `[4]`, actions 0 and 1, reward 1 a step, 500 steps. Task parameters: `gravity` (m/s²), `mass` of the
    pole (kg) and `length` (m, half of the pole's as in Gymnasium), each uniform between half and one and a half times
    Gymnasium's value, as floats of 64 bits. The ranges are ours; no paper fixes them.

    >>> metarl.make("CartPoleParams-v0").task(gravity=9.8, mass=0.1, length=0.5)
    """

    def __init__(self, horizon: int | None = None, vectorization: str = "sync", workers: int | None = None):
        super().__init__(
            "CartPoleParams-v0",
            "CartPole-v1",
            parameters={"gravity": (4.9, 14.7), "mass": (0.05, 0.15), "length": (0.25, 0.75)},
            apply=set_cart_pole,
            horizon=horizon,
            vectorization=vectorization,
            workers=workers,
        )


class PendulumParams(GymnasiumDistribution):
    """`Pendulum-v1` whose rod differs from task to task.

    Observation `[3]`, action `[1]` (torque in ±2), reward as in Gymnasium, 200 steps. Task parameters: `gravity`
    (m/s²), `mass` (kg) and `length` (m) of the rod, each uniform between half and one and a half times Gymnasium's
    value, as floats of 64 bits. The ranges are ours; no paper fixes them.

    >>> metarl.make("PendulumParams-v0").task(gravity=10.0, mass=1.0, length=1.0)
    """

    def __init__(self, horizon: int | None = None, vectorization: str = "sync", workers: int | None = None):
        super().__init__(
            "PendulumParams-v0",
            "Pendulum-v1",
            parameters={"gravity": (5.0, 15.0), "mass": (0.5, 1.5), "length": (0.5, 1.5)},
            apply=set_pendulum,
            horizon=horizon,
            vectorization=vectorization,
            workers=workers,
        )


def set_cart_pole(env: gym.Env, task: Mapping[str, float]) -> None:
    cart_pole = env.unwrapped
    cart_pole.gravity = task["gravity"]
    cart_pole.masspole = task["mass"]
    cart_pole.length = task["length"]
    cart_pole.total_mass = cart_pole.masspole + cart_pole.masscart
    cart_pole.polemass_length = cart_pole.masspole * cart_pole.length


def set_pendulum(env: gym.Env, task: Mapping[str, float]) -> None:
    env.unwrapped.g = task["gravity"]
    env.unwrapped.m = task["mass"]
    env.unwrapped.l = task["length"]
