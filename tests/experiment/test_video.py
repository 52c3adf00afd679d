"""Films: takes side by side, one frame a step, until the longer episode ends."""

from pathlib import Path

import numpy as np
import pytest
import torch
from films import frames_of

import metarl
from metarl.experiment.video import Take, film_frames, open_video, take_episode, write_film


def take(length: int, shade: int, **more) -> Take:
    pictures = [np.full((30, 160, 3), shade, np.uint8)] * length
    return Take("caption", pictures, np.arange(1.0, length + 1), more.get("success"))


def test_takes_stand_side_by_side_under_their_figures():
    """Two pictures of 160 pixels with 16 between them, under a header of 48, padded to multiples of 16."""
    (frame, *_, last) = film_frames([take(3, 10), take(1, 200)], hold=2)
    assert frame.shape == last.shape == (80, 336, 3)
    for picture in (frame, last):
        assert (picture[48:78, :160] == 10).all()
        assert (picture[48:78, 176:] == 200).all()
    assert (frame[:48] < 128).any(), "the figures are there"


def test_what_is_written_above_a_narrow_picture_has_room():
    """An environment's pictures may be as small as they like: no take writes into its neighbour's place."""
    success = np.array([False])
    narrow = Take("adapted: episode 61", [np.zeros((20, 20, 3), np.uint8)], np.array([-12345.5]), success)
    nothing = Take("", [np.zeros((20, 20, 3), np.uint8)], np.array([0.0]), None)
    (alone, *_) = film_frames([narrow, nothing])
    assert (alone[48:68, :20] == 0).all()
    place = int((alone[48:68] == 0).all(axis=(0, 2)).nonzero()[0][20]) - 16  # where the second picture is, less the gap
    assert place > 150
    assert (alone[:48, :place] < 128).any()
    assert (alone[:48, place - 6 : place + 16] == 255).all()


def test_the_longer_take_goes_on_and_the_end_stays():
    frames = list(film_frames([take(3, 0), take(5, 0)], hold=7))
    assert len(frames) == 5 + 1 + 7
    assert not np.array_equal(frames[4], frames[5]), "the last step's reward"
    assert all(np.array_equal(frames[5], frame) for frame in frames[6:])


def test_a_status_tells_what_has_happened_by_then():
    filmed = take(4, 0, success=np.array([False, True, False, False]))
    assert filmed.status(0) == "step 0  return 0.00"
    assert filmed.status(3) == "step 3  return 6.00"
    assert filmed.status(9) == "step 4  return 10.00"
    assert [filmed.succeeded(t) for t in range(5)] == [False, False, True, True, True]
    assert not take(4, 0).succeeded(4)


def test_a_take_has_one_picture_per_step_and_ends_with_the_episode(tmp_path: Path):
    """With the goal at (0.3, 0) and steps of 0.1, the episode terminates at the third step of twenty."""
    distribution = metarl.make("PointNavigation-v0", horizon=20)
    env = distribution.make_env(1, 1, render_mode="rgb_array")
    env.set_tasks(distribution.task(goal=[0.3, 0.0]))

    class Right(metarl.Policy):
        def act(self, observations):
            return metarl.PolicyStep(torch.tensor([[[0.1, 0.0]]]))

    walk = take_episode(env, Right(), "walking", seed=0)
    assert walk.rewards == pytest.approx([-0.04, -0.01, 0.0], abs=1e-6)
    assert walk.success is None
    path = tmp_path / "walk.mp4"
    write_film(path, [walk, walk], fps=10)
    frames = frames_of(path, 304, 528)
    assert len(frames) == 3 + 1 + 10
    for left in (0, 272):
        parts = frames[:3, 48:, left : left + 256]
        blue = [np.argwhere((part[..., 2] > 150) & (part[..., 0] < 90))[:, 1].mean() for part in parts]
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
