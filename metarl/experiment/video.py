"""Films of episodes, written frame by frame: one before adaptation beside one after it."""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from metarl.experiment.report_tables import figure
from metarl.rollout import Policy, PolicyStep, collect
from metarl.rollout.policy import PolicyWrapper
from metarl.spaces import Observations
from metarl.vector_env import TaskVectorEnv

BLOCK = 16
"""Codecs need widths and heights that are multiples of this."""
HEADER_HEIGHT = 48
GAP = 16
"""Pixels between two pictures."""
HOLD = 1.0
"""Seconds that the last frame stays."""
MARGIN = 6
"""Pixels between what is written above a picture and the sides of its place."""
LARGE, SMALL = ImageFont.load_default(15), ImageFont.load_default(13)
UNSUCCESSFUL = "no success yet"
_INK, _SOFT, _GOOD = "#1b1f24", "#5b6570", "#00733b"


@dataclass(frozen=True)
class Take:
    """One filmed episode: a picture of the state before each step, and what each step brought.

    >>> from metarl.experiment.video import Take
    >>> import numpy as np
    >>> Take("before", [np.zeros((32, 32, 3), np.uint8)], np.array([1.0]), None).status(1)
    'step 1  return 1.00'
    """

    caption: str
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]]
    rewards: Float[np.ndarray, "T"]
    success: Bool[np.ndarray, "T"] | None
    """Whether each step succeeded; None if the family defines no success."""

    def status(self, steps: int) -> str:
        """Return and steps after `steps` steps, or at the end of a shorter episode."""
        steps = min(steps, len(self.rewards))
        return f"step {steps}  return {figure(float(self.rewards[:steps].sum()))}"

    def succeeded(self, steps: int) -> bool:
        """Whether one of the first `steps` steps succeeded, which makes the episode a success."""
        return self.success is not None and bool(self.success[:steps].any())


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


def write_film(path: Path, takes: Sequence[Take], fps: int = 30) -> None:
    """Writes the takes side by side. The last frame, with the final figures, stays for a second."""
    with open_video(path, fps) as writer:
        for frame in film_frames(takes, hold=round(HOLD * fps)):
            writer.append_data(frame)


def film_frames(takes: Sequence[Take], hold: int = 0) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of a film, one a step of the longest take; a shorter one stays at its end, as all do for `hold` more.

    Frame `t` shows the state before step `t` and the figures of the `t` steps before it. The state after the last step
    has no picture, because the environment has been reset by then: the frames of the end have the figures alone.
    """
    longest = max(len(take.pictures) for take in takes)
    widths = [_width(take, longest) for take in takes]
    for step in itertools.chain(range(longest), itertools.repeat(longest, hold + 1)):
        yield _frame(takes, widths, step)


def take_episode(env: TaskVectorEnv, policy: Policy, caption: str, *, seed: int) -> Take:
    """Films a fork of `policy` for one episode. `env` is a single environment with `render_mode="rgb_array"`."""
    filmed = _FilmedPolicy(env, policy.fork())
    trajectories = collect(env, filmed, episodes=1, seed=seed)
    rewards = trajectories.rewards[:, 0, 0].double().cpu().numpy()
    success = None if trajectories.success is None else trajectories.success[:, 0, 0].cpu().numpy()
    return Take(caption, filmed.pictures, rewards, success)


def _width(take: Take, steps: int) -> int:
    """Of a take's place in every frame: that of its pictures, or of what is written above them if that is wider."""
    second = max(SMALL.getlength(take.status(step)) for step in range(steps + 1))
    if take.success is not None:
        second += MARGIN + SMALL.getlength(UNSUCCESSFUL)
    return max(take.pictures[0].shape[1], math.ceil(max(LARGE.getlength(take.caption), second)) + 2 * MARGIN)


def _frame(takes: Sequence[Take], widths: Sequence[int], step: int) -> UInt8[np.ndarray, "H W 3"]:
    pictures = [Image.fromarray(take.pictures[min(step, len(take.pictures) - 1)]) for take in takes]
    width = sum(widths) + GAP * (len(takes) - 1)
    height = max(picture.height for picture in pictures) + HEADER_HEIGHT
    frame = Image.new("RGB", (_padded(width), _padded(height)), "white")
    drawing, left = ImageDraw.Draw(frame), 0
    for take, picture, place in zip(takes, pictures, widths, strict=True):
        frame.paste(picture, (left, HEADER_HEIGHT))
        drawing.text((left + MARGIN, 4), take.caption, fill=_INK, font=LARGE)
        drawing.text((left + MARGIN, 26), take.status(step), fill=_SOFT, font=SMALL)
        if take.success is not None:
            text, colour = ("success", _GOOD) if take.succeeded(step) else (UNSUCCESSFUL, _SOFT)
            drawing.text((left + place - MARGIN, 26), text, fill=colour, font=SMALL, anchor="ra")
        left += place + GAP
    return np.asarray(frame)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class _FilmedPolicy(PolicyWrapper):
    """A policy that takes a picture before each action."""

    def __init__(self, env: TaskVectorEnv, policy: Policy):
        super().__init__(policy)
        self.env = env
        self.pictures: list[UInt8[np.ndarray, "H W 3"]] = []

    def act(self, observations: Observations) -> PolicyStep:
        (picture,) = self.env.render() or ()
        self.pictures.append(np.array(picture))
        return super().act(observations)
