"""Images turned, moved and reshaped at random, so that training sees more drawings and more classes than there are."""

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
    """The images of `samples`, each turned and moved by itself, all of a class reshaped alike.

    Angles are of up to `rotation` degrees, moves of up to `translation` of the image's sides, shapes those of
    `class_shapes`. What comes in from outside repeats the border.
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
    """A matrix for each class of `size` tasks: the unit matrix plus numbers of up to `strength`.

    Half of them, by chance, mirror: x and y are swapped. Below a strength of 1/2 none is singular.
    """
    device = generator.device
    noise = 2 * torch.rand(size, ways, 2, 2, generator=generator, device=device) - 1
    matrices = torch.eye(2, device=device) + strength * noise
    mirrored = torch.rand(size, ways, generator=generator, device=device) < 0.5
    return torch.where(mirrored[..., None, None], matrices.flip(3), matrices)
