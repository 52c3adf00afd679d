"""RecurrentPPO of sb3-contrib on HalfCheetah-v5, in a process of its own that `benchmark_learn` asks to train.

The first line of input is a `Request` as JSON. It and each further line are answered by a line with the next training
iteration: `{"seconds": …, "amount": environment steps, "vectorization": …}`. The peer has the network of `RL2`, one
recurrent layer that policy and value share, and is spared everything else: its episodes are not trials, and no task is
drawn.
"""

import contextlib
import functools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch

TRIED_STEPS = 20


@dataclass(frozen=True)
class Request:
    """The sizes of an iteration, those of the training it is compared with."""

    environments: int
    steps: int
    """Steps of each environment in an iteration."""
    horizon: int
    hidden: int
    epochs: int
    minibatches: int
    threads: int


def faster_vectorization(make: Callable[[], gym.Env], count: int) -> Any:
    """Stable-Baselines3's vector environment that steps `count` environments in less time on this machine."""
    # Imported here because it is slow, and whoever makes a `Request` needs none of it.
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    seconds: dict[Any, float] = {}
    for vectorization in (DummyVecEnv, SubprocVecEnv):
        with contextlib.closing(vectorization([make] * count)) as env:
            env.reset()
            actions = np.zeros((count, *env.action_space.shape), np.float32)
            start = time.perf_counter()
            for _ in range(TRIED_STEPS):
                env.step_async(actions)
                env.step_wait()
            seconds[vectorization] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def main() -> None:
    from sb3_contrib import RecurrentPPO

    request = Request(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(request.threads)
    make = functools.partial(gym.make, "HalfCheetah-v5", max_episode_steps=request.horizon)
    vectorization = faster_vectorization(make, request.environments)
    amount = request.environments * request.steps
    model = RecurrentPPO(
        "MlpLstmPolicy",
        vectorization([make] * request.environments),
        n_steps=request.steps,
        batch_size=amount // request.minibatches,
        n_epochs=request.epochs,
        policy_kwargs={
            "lstm_hidden_size": request.hidden,
            "net_arch": [],
            "shared_lstm": True,
            "enable_critic_lstm": False,
        },
        device="cpu",
        seed=0,
    )
    while True:
        start = time.perf_counter()
        model.learn(amount, reset_num_timesteps=False)
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "amount": amount, "vectorization": vectorization.__name__}
        print(json.dumps(answer), flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main()
