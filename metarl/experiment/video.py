"""Videos of episodes, written frame by frame."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import imageio
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from metarl.rollout import Policy, PolicyStep, Trajectories, Transition, collect
from metarl.spaces import Observations
from metarl.vector_env import TaskVectorEnv

BLOCK = 16
"""Codecs need widths and heights that are multiples of this."""
CAPTION_HEIGHT = 16


@contextmanager
def open_video(path: Path, fps: int = 30) -> Iterator[Any]:
    """Opens a writer with `append_data(frame)`. `path`, an .mp4, appears when everything is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        # The writer's own context manager does not close the file after an exception.
        with closing(imageio.get_writer(partial, fps=fps, macro_block_size=BLOCK, codec="libx264")) as writer:
            yield writer
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def record_episode(env: TaskVectorEnv, policy: Policy, writer: Any, caption: str, *, seed: int) -> Trajectories:
    """Runs a fork of `policy` for one episode and writes one frame per step, with `caption` above it.

    `env` is a single environment with `render_mode="rgb_array"`. A frame shows the state before the step, because after
    the last step the environment has already been reset.
    """
    return collect(env, _RecordedPolicy(env, policy.fork(), writer, caption), episodes=1, seed=seed)


def caption_frame(frame: UInt8[np.ndarray, "H W 3"], caption: str) -> UInt8[np.ndarray, "H2 W2 3"]:
    """`frame` with a line of text above it, on white, with both sides rounded up to multiples of 16."""
    height, width = (-(-size // BLOCK) * BLOCK for size in frame.shape[:2])
    picture = Image.new("RGB", (width, height + CAPTION_HEIGHT), "white")
    picture.paste(Image.fromarray(frame), (0, CAPTION_HEIGHT))
    ImageDraw.Draw(picture).text((4, 2), caption, fill="black")
    return np.asarray(picture)


class _RecordedPolicy(Policy):
    """A policy that records a frame before each action."""

    def __init__(self, env: TaskVectorEnv, policy: Policy, writer: Any, caption: str):
        self.env, self.policy, self.writer, self.caption = env, policy, writer, caption

    def act(self, observations: Observations) -> PolicyStep:
        frames: Sequence[np.ndarray] = self.env.render() or ()
        self.writer.append_data(caption_frame(frames[0], self.caption))
        return self.policy.act(observations)

    def observe(self, transition: Transition) -> None:
        self.policy.observe(transition)

    def begin_trial(self, mask: Bool[Tensor, "M N"]) -> None:
        self.policy.begin_trial(mask)
