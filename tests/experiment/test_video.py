"""Videos: one frame a step, until the episode ends."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

import metarl
from metarl.experiment.video import caption_frame, open_video, record_episode


def decoded(path: Path, height: int, width: int) -> np.ndarray:
    """All frames. (imageio's reader leaves pipes open if the decoder has ended before it is closed.)"""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_a_caption_keeps_the_picture_and_fits_the_codec():
    frame = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
    captioned = caption_frame(frame, "before")
    assert captioned.shape == (48, 32, 3)
    assert np.array_equal(captioned[16:46, :20], frame)
    assert (captioned[:16] < 128).any(), "the caption is there"


def test_a_video_has_one_frame_per_step_and_stops_with_the_episode(tmp_path: Path):
    """With the goal at (0.3, 0) and steps of 0.1, the episode terminates at the third step of twenty."""
    distribution = metarl.make("PointNavigation-v0", horizon=20)
    env = distribution.make_env(1, 1, render_mode="rgb_array")
    env.set_tasks(distribution.task(goal=[0.3, 0.0]))
    shown = []

    class Right(metarl.Policy):
        def act(self, observations):
            shown.append(observations[0, 0, 0].item())
            return metarl.PolicyStep(torch.tensor([[[0.1, 0.0]]]))

        def fork(self):
            return self

    path = tmp_path / "walk.mp4"
    with open_video(path) as writer:
        trajectories = record_episode(env, Right(), writer, "walking", seed=0)
    assert trajectories.ended[2]
    assert len(shown) == 3
    frames = decoded(path, height=256 + 16, width=256)
    assert len(frames) == 3
    blue = [np.argwhere((f[16:, :, 2] > 150) & (f[16:, :, 0] < 90))[:, 1].mean() for f in frames]
    pixels_per_step = 0.1 / (2 * 0.75) * 256
    assert np.diff(blue) == pytest.approx([pixels_per_step] * 2, abs=1.5), "the point moves right, a step a frame"


def test_a_video_that_fails_leaves_nothing(tmp_path: Path):
    def film() -> None:
        with open_video(tmp_path / "walk.mp4") as writer:
            writer.append_data(np.zeros((32, 32, 3), np.uint8))
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        film()
    assert list(tmp_path.iterdir()) == []
