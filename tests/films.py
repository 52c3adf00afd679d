"""Reads films back."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np


def frames_of(path: Path, height: int, width: int) -> np.ndarray:
    """All frames, uint8 `[T, height, width, 3]`.

    `imageio.get_reader` leaves its pipes open if ffmpeg has already ended when it is closed: on a busy machine, that is
    a warning now and then.
    """
    read, write = ["-v", "error", "-i", str(path)], ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *read, *write], check=True, capture_output=True).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
