"""Random rotations, translations and shapes of images, so that training sees more drawings and classes than exist."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metarl.fewshot.episodes import Samples


def distort(
    samples: Samples,
    ways: int,
    generator: torch.Generator,
    *,
    rotation: float,
    translation: float,
    class_distortion: float,
) -> Float[Tensor, "E n C H W"]:
    """Rotates and translates each image of `samples` separately, and reshapes all images of a class alike.

    Angles are up to `rotation` degrees, translations up to the share `translation` of the image's sides, and shapes are
    drawn by `class_shapes`. Pixels from outside the image repeat its border.
    """
    images, device = samples.x.flatten(0, 1), samples.x.device
    draws = 2 * torch.rand(len(images), 3, generator=generator, device=device) - 1
    angle = draws[:, 0] * math.radians(rotation)
    offset = draws[:, 1:, None] * 2 * translation  # grid coordinates go from −1 to 1
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).unflatten(1, (2, 2))
    maps = torch.cat([turn, offset], 2)
    if class_distortion > 0:
        shapes = class_shapes(len(samples.x), ways, class_distortion, generator)
        maps = shapes.take_along_dim(samples.y[..., None, None], 1).flatten(0, 1) @ maps
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved.unflatten(0, samples.x.shape[:2])


def class_shapes(size: int, ways: int, strength: float, generator: torch.Generator) -> Float[Tensor, "E N 2 2"]:
    """Draws a matrix for each class of `size` tasks: the unit matrix plus numbers of up to ±`strength`.

    With probability 1/2 a matrix also mirrors, swapping x and y. Below a strength of 1/2 none is singular.
    """
    device = generator.device
    noise = 2 * torch.rand(size, ways, 2, 2, generator=generator, device=device) - 1
    matrices = torch.eye(2, device=device) + strength * noise
    mirrored = torch.rand(size, ways, generator=generator, device=device) < 0.5
    return torch.where(mirrored[..., None, None], matrices.flip(3), matrices)
