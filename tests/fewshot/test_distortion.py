"""Distorted images, by where strokes and slopes end up."""

import pytest
import torch

from metarl.fewshot.distortion import class_shapes, distort
from metarl.fewshot.episodes import Samples
from metarl.randomness import make_generator


def test_images_are_turned_and_moved_a_little():
    picture = torch.zeros(1, 6, 1, 28, 28)
    picture[..., 12:16, 6:22] = 1.0
    samples = Samples(picture, torch.arange(6)[None] % 3)
    options = {"rotation": 11.25, "translation": 0.095, "class_distortion": 0.0}
    moved = distort(samples, 3, make_generator(0), **options)
    assert moved.shape == picture.shape
    assert moved[0].sum((1, 2, 3)).tolist() == pytest.approx([64.0] * 6, rel=0.05)  # the stroke stays inside
    rows = torch.arange(28.0)[:, None]
    centers = [float((image[0] * rows).sum() / image[0].sum()) for image in moved[0]]
    assert max(abs(center - 13.5) for center in centers) < 0.095 * 28 + 0.1
    assert len({round(center, 3) for center in centers}) == 6
    still = distort(samples, 3, make_generator(0), rotation=0.0, translation=0.0, class_distortion=0.0)
    torch.testing.assert_close(still, picture, rtol=0, atol=1e-4)


def test_a_class_is_reshaped_as_a_whole_and_no_two_alike():
    """The slopes of a linear image are the matrix's transpose times those that it had."""
    y, x = torch.meshgrid(*[(2 * torch.arange(28.0) + 1) / 28 - 1] * 2, indexing="ij")
    places = torch.stack([x, y], 2).flatten(0, 1)  # from −1 to 1
    ramp = (2 * x + y).expand(40, 6, 1, 28, 28)  # linear, so that sampling between pixels is exact
    samples = Samples(ramp, torch.tensor([[0, 1, 2, 0, 1, 2]]).expand(40, 6))
    moved = distort(samples, 3, make_generator(1), rotation=0.0, translation=0.0, class_distortion=0.3)
    torch.testing.assert_close(moved[:, :3], moved[:, 3:])
    inside = (places.abs().amax(1) < 0.5).nonzero()[:, 0]  # nothing from beyond the border comes here
    values = moved[:, :3].flatten(0, 1).flatten(1)[:, inside, None]
    slopes = torch.linalg.lstsq(places[inside].expand(120, -1, 2), values).solution[..., 0]
    bound = 0.3 * 3 + 1e-3  # of (2, 1) times a matrix of numbers up to 0.3
    plain, mirrored = ((slopes - torch.tensor(s)).abs().amax(1) <= bound for s in ([2.0, 1.0], [1.0, 2.0]))
    assert (plain | mirrored).all()
    assert 0.25 < (slopes[:, 0] > slopes[:, 1]).float().mean() < 0.75  # about half of them are mirrored
    assert len({tuple(slope) for slope in slopes.tolist()}) == 120


def test_no_shape_is_flat():
    determinants = torch.linalg.det(class_shapes(500, 5, 0.45, make_generator(2)))
    assert determinants.abs().min() > 0.05
    assert 0.4 < (determinants < 0).float().mean() < 0.6
