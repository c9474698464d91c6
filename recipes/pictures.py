"""Pictures to ask about: coloured shapes that are drawn here, and the digits that come with scikit-learn.

    python recipes/pictures.py FOLDER [--shapes 20000] [--seed 0]

Writes pictures as PNG, and rows of questions and answers: `train.jsonl` (shapes and digits), `shapes.jsonl` and
`digits.jsonl` (held out), `blind.jsonl` (the training rows without their pictures) and `text.txt` (their words, for a
model of text to begin with). A scene belongs to one part by its hash, so that no picture is on both sides; the digits
held out are the last fifth of their data set, of other writers than the rest. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SIDE, SCALE = 32, 4
COLOURS = {"red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 220), "yellow": (235, 200, 30)}
KINDS = ("circle", "square", "triangle")
CORNERS = {(0, 0): "top left", (1, 0): "top right", (0, 1): "bottom left", (1, 1): "bottom right"}
HELD_OUT = 10
"""Of a hundred scenes."""

Scene = list[tuple[str, str, int, int, int]]
"""Kind, colour, middle and half a side of each shape."""
Question = tuple[str, str]


def scene(draw: random.Random) -> Scene:
    """One to four shapes in different corners, no kind in a colour twice."""
    places = draw.sample(sorted(CORNERS), draw.randint(1, 4))
    looks = draw.sample([(kind, colour) for kind in KINDS for colour in COLOURS], len(places))
    found = []
    for (column, row), (kind, colour) in zip(places, looks, strict=True):
        half = draw.randint(4, 6)
        x, y = (16 * index + draw.randint(half + 1, 15 - half) for index in (column, row))
        found.append((kind, colour, x, y, half))
    return found


def drawn(shapes: Scene, background: int) -> Image.Image:
    """The picture, drawn large and made small, so that edges are soft."""
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE), (background,) * 3)
    pen = ImageDraw.Draw(image)
    for kind, colour, x, y, half in shapes:
        left, top, right, bottom = (SCALE * n for n in (x - half, y - half, x + half, y + half))
        if kind == "circle":
            pen.ellipse((left, top, right, bottom), fill=COLOURS[colour])
        elif kind == "square":
            pen.rectangle((left, top, right, bottom), fill=COLOURS[colour])
        else:
            pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=COLOURS[colour])
    return image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def questions(shapes: Scene, draw: random.Random) -> list[Question]:
    """Two questions about a scene, of different sorts."""
    kind, colour, x, y, _ = draw.choice(shapes)
    found = [
        ("How many shapes are there?", str(len(shapes))),
        (f"Where is the {colour} {kind}?", CORNERS[x // 16, y // 16]),
    ]
    same_kind = [one for one in shapes if one[0] == kind]
    if len(same_kind) == 1:
        found.append((f"What colour is the {kind}?", colour))
    if sum(one[1] == colour for one in shapes) == 1:
        found.append((f"What shape is {colour}?", kind))
    return draw.sample(found, 2)


def shape_rows(folder: Path, count: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to learn from, and held-out ones."""
    draw = random.Random(seed)
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number in range(count):
        shapes, background = scene(draw), draw.randint(225, 255)
        held_out = int.from_bytes(hashlib.sha256(repr(sorted(shapes)).encode()).digest()[:4], "big") % 100 < HELD_OUT
        name = f"shapes/{number:05}.png"
        drawn(shapes, background).save(folder / name)
        for asked, answer in questions(shapes, draw):
            parts[held_out].append({"image": name, "question": asked, "answer": answer})
    return parts


def digit_rows(folder: Path, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to learn from, each digit moved a little in four ways, and held-out ones."""
    from sklearn.datasets import load_digits

    draw = random.Random(seed)
    images, labels = load_digits(return_X_y=True)
    border = len(images) * 4 // 5
    parts: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        large = np.kron(255 - image.reshape(8, 8) * (255 / 16), np.ones((SCALE, SCALE))).astype(np.uint8)
        held_out = number >= border
        for copy in range(1 if held_out else 5):
            moved = large
            if copy:
                shift = draw.randint(-2, 2), draw.randint(-2, 2)
                moved = np.roll(np.pad(large, 4, constant_values=255), shift, axis=(0, 1))[4:-4, 4:-4]
            name = f"digits/{number:05}-{copy}.png"
            Image.fromarray(moved).save(folder / name)
            parts[held_out].append({"image": name, "question": "Which digit is it?", "answer": str(label)})
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for name in ("shapes", "digits"):
        (given.folder / name).mkdir(parents=True, exist_ok=True)
    shapes, digits = shape_rows(given.folder, given.shapes, given.seed), digit_rows(given.folder, given.seed)
    train = [*shapes[0], *digits[0]]
    random.Random(given.seed).shuffle(train)
    blind = {(row["question"], row["answer"]): None for row in train}
    words = "".join(f"{asked} {answer}\n" for asked, answer in blind for _ in range(20))
    without = [{"question": row["question"], "answer": row["answer"], "id": n} for n, row in enumerate(train)]
    parts = {"train": train, "shapes": shapes[1][:1000], "digits": digits[1], "blind": without}
    for name, rows in parts.items():
        (given.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = words.splitlines(keepends=True)
    random.Random(given.seed).shuffle(lines)
    (given.folder / "text.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
