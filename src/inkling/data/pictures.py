"""Pictures from files and data URLs: small, square, and nothing that a picture can do harm with.

Shapes: S pixels of a side.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from inkling.data.captions import read_member
from inkling.errors import DataError, reason_of

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_BYTES = 32 << 20
MAX_PIXELS = 64_000_000
"""Decoded: more is no photograph but a bomb."""
_DATA_URL = re.compile(r"data:image/[a-z+.-]+;base64,", re.IGNORECASE)


def read_picture(source: str, folder: Path | None, size: int) -> np.ndarray:
    """A picture as bytes of red, green and blue, (S, S, 3), stretched to a square.

    Of an animation the first picture is taken; what is transparent becomes white; every colour space becomes RGB.

    Args:
        source: A data URL, or the path of a file, or of one in a tar file (`ARCHIVE.tar/MEMBER`).
        folder: Where relative paths begin; None: files are not read.
        size: S.

    Raises DataError for what is no picture, is damaged or too large, and for other URLs: nothing is fetched.
    """
    content, name = _content(source, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about size, of which the limit below is stricter
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(f"{name} has {width:,} × {height:,} pixels; {MAX_PIXELS:,} is the most")
                turned = ImageOps.exif_transpose(image)
                return np.asarray(_opaque(turned).resize((size, size), Image.Resampling.BICUBIC))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        if "cannot identify" in reason:
            reason = f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise DataError(f"{name} is no picture that can be read ({reason[:200]})") from None


def to_pixels(pictures: Sequence[np.ndarray]) -> Tensor:
    """Bytes, (S, S, 3) each, as SigLIP's numbers from -1 to 1, (P, 3, S, S)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _content(source: str, folder: Path | None) -> tuple[bytes, str]:
    found = _DATA_URL.match(source)
    if found is not None:
        if len(source) > MAX_BYTES * 4 // 3:
            raise DataError(f"a picture has more than {MAX_BYTES >> 20} MB")
        try:
            return base64.b64decode(source[found.end() :], validate=True), "the picture"
        except (binascii.Error, ValueError):
            raise DataError("the picture's data URL is not base64") from None
    if re.match(r"[a-z][a-z0-9+.-]+:", source, re.IGNORECASE) or folder is None:
        raise DataError(f"pictures are not fetched: {source[:80]!r}. Give a data URL (data:image/png;base64,…)")
    path = folder / source
    try:
        if not path.is_file():
            return read_member(path, MAX_BYTES), str(path)
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES >> 20} MB")
        return path.read_bytes(), str(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {source[:80]!r}: {reason_of(error)}") from None


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, coloured).convert("RGB")
    return image.convert("RGB")
