"""Convolutions as affine maps of patches, and the layers for pictures of any size."""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LARGEST_MAP = 26
"""Longest side of a map. The first layer reduces longer sides of pictures to it at once."""
SMALLEST_MAP = 4
"""Layers are added until no side of the map is longer."""
FILTERS = (16, 32)
"""Filters of the first layer and of all others."""


@dataclass(frozen=True)
class Convolution:
    """A convolution layer: its input `[height, width, channels]`, the windows it reads and its `filters`.

    The input is padded with zeros at the bottom and at the right, so that the windows cover all of it. A window of
    `kernel` = (rows, columns) is a vector of K = rows · columns · channels numbers, channels innermost. P windows are
    read. The layer is an affine map of each, with a weight `[filters, K]`.

    >>> from metarl.nn.convolution import Convolution
    >>> layer = Convolution(height=7, width=7, channels=3, filters=16, kernel=(3, 3), stride=2)
    >>> layer.rows, layer.columns, layer.patches(torch.zeros(5, 7, 7, 3)).shape
    (3, 3, torch.Size([5, 9, 27]))
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: int

    @property
    def rows(self) -> int:
        """Windows from top to bottom."""
        return math.ceil((self.height - self.kernel[0]) / self.stride) + 1

    @property
    def columns(self) -> int:
        """Windows from left to right."""
        return math.ceil((self.width - self.kernel[1]) / self.stride) + 1

    @property
    def num_patches(self) -> int:
        """P."""
        return self.rows * self.columns

    @property
    def patch_size(self) -> int:
        """K."""
        return self.kernel[0] * self.kernel[1] * self.channels

    def patches(self, maps: Float[Tensor, "R H W C"]) -> Float[Tensor, "R P K"]:
        """The windows of each map (im2col)."""
        tall, wide = self.kernel
        windows = self._padded(maps).unfold(1, tall, self.stride).unfold(2, wide, self.stride)
        return windows.permute(0, 1, 2, 4, 5, 3).reshape(len(maps), self.num_patches, self.patch_size)

    def scatter(self, patches: Float[Tensor, "R P K"]) -> Float[Tensor, "R H W C"]:
        """The transpose of `patches`: the sum of what each number of a map contributes to (col2im)."""
        (tall, wide), (below, right) = self.kernel, self._padding
        windows = patches.unflatten(2, (tall, wide, self.channels)).unflatten(1, (self.rows, self.columns))
        maps = patches.new_zeros(len(patches), self.height + below, self.width + right, self.channels)
        down, across = self.stride * self.rows, self.stride * self.columns
        for i in range(tall):
            for j in range(wide):
                maps[:, i : i + down : self.stride, j : j + across : self.stride] += windows[:, :, :, i, j]
        return maps[:, : self.height, : self.width]

    def __call__(
        self, weight: Float[Tensor, "F K"], bias: Float[Tensor, "F"], maps: Float[Tensor, "R H W C"]
    ) -> Float[Tensor, "R h w F"]:
        """The same affine map of every window for all maps, by torch's own convolution."""
        kernel = weight.unflatten(1, (*self.kernel, self.channels)).permute(0, 3, 1, 2)
        planes = self._padded(maps).permute(0, 3, 1, 2)
        return F.conv2d(planes, kernel, bias, self.stride).permute(0, 2, 3, 1)

    @property
    def _padding(self) -> tuple[int, int]:
        """Rows below and columns to the right of the input."""
        tall, wide = self.kernel
        return (
            (self.rows - 1) * self.stride + tall - self.height,
            (self.columns - 1) * self.stride + wide - self.width,
        )

    def _padded(self, maps: Float[Tensor, "R H W C"]) -> Float[Tensor, "R h w C"]:
        below, right = self._padding
        return F.pad(maps, (0, 0, 0, right, 0, below)) if below or right else maps


def layers_for(height: int, width: int, channels: int) -> tuple[Convolution, ...]:
    """The layers that reduce a picture to a map of at most 4 × 4, at least one.

    If a side is longer than 26, the first layer reads windows of 2s × 2s with stride s, the smallest power of two (from
    4 on) that makes the map at most 26 long. All other layers read 3 × 3 windows with stride 2. So the first layer
    takes some 64 · height · width · channels multiplications, and the others a bounded number.

    | picture       | maps after each layer                                       | outputs | MB   |
    | ------------- | ----------------------------------------------------------- | ------- | ---- |
    | 5 × 5 × 3     | 2 × 2 × 16                                                  | 64      | 0.00 |
    | 7 × 7 × 3     | 3 × 3 × 16                                                  | 144     | 0.00 |
    | 12 × 12 × 3   | 6 × 6 × 16, 3 × 3 × 32                                      | 288     | 0.03 |
    | 56 × 56 × 3   | 13 × 13 × 16 (s = 4), 6 × 6 × 32, 3 × 3 × 32                | 288     | 0.2  |
    | 84 × 84 × 4   | 20 × 20 × 16 (s = 4), 10 × 10 × 32, 5 × 5 × 32, 2 × 2 × 32  | 128     | 0.5  |
    | 210 × 160 × 3 | 26 × 19 × 16 (s = 8), 13 × 9 × 32, 6 × 4 × 32, 3 × 2 × 32   | 192     | 0.6  |

    MB is the memory that one sample takes in a `PictureLinearization`, beside the picture itself.
    """
    layers: list[Convolution] = []
    while not layers or max(height, width) > SMALLEST_MAP:
        window, stride = 3, 2
        if not layers and max(height, width) > LARGEST_MAP:
            stride = 4
            while math.ceil(max(height, width) / stride) - 1 > LARGEST_MAP:
                stride *= 2
            window = 2 * stride
        kernel = min(window, height), min(window, width)
        layers.append(Convolution(height, width, channels, FILTERS[min(len(layers), 1)], kernel, stride))
        height, width, channels = layers[-1].rows, layers[-1].columns, layers[-1].filters
    return tuple(layers)
