"""Pictures from files and data URLs: right ones as Pillow has them, wrong ones named."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inkling.data.chats import recognise
from inkling.data.pictures import MAX_PIXELS, read_picture, to_pixels
from inkling.errors import DataError
from inkling.tokenizer.chat import PICTURE


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def url_of(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))


def test_a_picture_of_the_right_size_is_read_as_it_is(noise: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(noise))
    for source in ("a.png", url_of(encoded(noise))):
        assert np.array_equal(read_picture(source, tmp_path, 16), np.asarray(noise))
    pixels = to_pixels([np.asarray(noise)])
    assert pixels.shape == (1, 3, 16, 16)
    assert float(pixels[0, 1, 2, 3]) == pytest.approx(np.asarray(noise)[2, 3, 1] / 127.5 - 1)


def test_other_sorts_become_red_green_and_blue() -> None:
    red = Image.new("RGB", (8, 8), (250, 10, 10))
    cmyk = read_picture(url_of(encoded(red.convert("CMYK"), "JPEG")), None, 8)
    assert np.abs(cmyk.astype(int) - (250, 10, 10)).max() < 12
    grey = read_picture(url_of(encoded(Image.new("L", (8, 8), 77))), None, 8)
    assert (grey == 77).all()
    clear = read_picture(url_of(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)))), None, 8)
    assert (clear == 255).all()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert (read_picture(url_of(moving), None, 8) == (255, 0, 0)).all()


def test_a_turned_photograph_is_turned_back() -> None:
    image = Image.new("RGB", (8, 4), "red")
    image.paste((0, 0, 255), (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    content = encoded(image, "JPEG", exif=exif.tobytes(), quality=100)
    found = read_picture(url_of(content), None, 8).astype(int)
    assert found[0, 4, 2] > 150  # what was left is now at the top
    assert found[-1, 4, 0] > 150


def bomb(side: int) -> bytes:
    """A PNG that says it is huge, and is a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def test_what_is_no_picture_is_named(noise: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(encoded(noise)[:300])
    (tmp_path / "bomb.png").write_bytes(bomb(60_000))
    (tmp_path / "large.png").write_bytes(bomb(int(MAX_PIXELS**0.5) + 1))
    (tmp_path / "picture.tiff").write_bytes(encoded(noise, "TIFF"))
    for source, reason in {
        "text.png": "no PNG, JPEG",
        "empty.png": "no PNG, JPEG",
        "cut.png": "is no picture that can be read",
        "bomb.png": "pixels",
        "large.png": "pixels",
        "picture.tiff": "no PNG, JPEG",
        "missing.png": "there is no picture",
        ".": "there is no picture",
        "https://example.org/a.png": "not fetched",
        "file:///etc/passwd": "not fetched",
        "data:image/png;base64,%%%": "not base64",
        "data:image/png;base64,AAAA": "no PNG, JPEG",
        "data:text/html;base64,AAAA": "not fetched",
    }.items():
        with pytest.raises(DataError, match=reason):
            read_picture(source, tmp_path, 16)
    with pytest.raises(DataError, match="not fetched"):
        read_picture("a.png", None, 16)


@pytest.mark.parametrize(
    ("row", "said", "sources"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}},
                {"type": "text", "text": "What?"}]}, {"role": "assistant", "content": "A cat."}]},
            f"{PICTURE}What?", ["a.png"],
        ),
        (
            {"image": "b.png", "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                {"from": "gpt", "value": "A dog."}]},
            f"{PICTURE}\nWhat?", ["b.png"],
        ),
        ({"image": "c.png", "question": "What?", "answer": "A cup."}, f"{PICTURE}\nWhat?", ["c.png"]),
        ({"image": "d.png", "caption": "A hat."}, f"{PICTURE}\nDescribe the picture.", ["d.png"]),
    ],
    ids=["openai", "llava", "question", "caption"],
)  # fmt: skip
def test_pictures_are_found_in_rows(row: dict[str, Any], said: str, sources: list[str]) -> None:
    found = recognise(json.loads(json.dumps(row)), "here")
    first = found.messages[0]  # type: ignore[union-attr]
    assert (first["content"], first["pictures"]) == (said, sources)


def test_rows_with_half_a_picture_are_named() -> None:
    for row, reason in [
        ({"image": "a.png"}, "without a caption"),
        ({"image": 7, "question": "What?", "answer": "A cup."}, "no file and no data URL"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "without a file"),
    ]:
        with pytest.raises(DataError, match=reason):
            recognise(row, "here")
