"""Pictures to ask about: coloured shapes that are drawn here, and the digits that come with scikit-learn.

    python recipes/pictures.py FOLDER [--shapes 20000] [--seed 0]

Writes pictures as PNG, and questions with their answers: `train.jsonl` (conversations about shapes and digits),
`shapes.jsonl` and `digits.jsonl` (held out, single questions), `blind.jsonl` (the training questions without their
pictures) and `text.txt` (their words and those of the chat template, for a model of text to begin with). A scene
belongs to one part by its hash, so that no picture is on both sides; the digits held out are the last fifth of their
data set, of other writers than the rest. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
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
MOVED = 9
"""Copies of a digit that is learnt from, beside the one as it is."""
DIGIT = "Which digit is it?"

Scene = list[tuple[str, str, int, int, int]]
"""Kind, colour, middle and half a side of each shape."""
Question = tuple[str, str]
Row = dict[str, Any]


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


def questions(shapes: Scene) -> list[list[Question]]:
    """What can be asked about each shape of a scene, and about all of them together."""
    kinds, colours = Counter(one[0] for one in shapes), Counter(one[1] for one in shapes)
    found = [[("How many shapes are there?", str(len(shapes)))]]
    for kind, colour, x, y, _ in shapes:
        about = [(f"Where is the {colour} {kind}?", CORNERS[x // 16, y // 16])]
        if kinds[kind] == 1:
            about.append((f"What colour is the {kind}?", colour))
        if colours[colour] == 1:
            about.append((f"What shape is {colour}?", kind))
        found.append(about)
    return found


def one_of_each(asked: list[list[Question]], draw: random.Random) -> list[Question]:
    """One question about each shape, in random order: a second one about it could give away what the first asks."""
    return draw.sample([draw.choice(about) for about in asked], len(asked))


def of_one_shape(asked: list[list[Question]], draw: random.Random) -> list[Question]:
    """Two questions of different sorts, about one shape and all of them."""
    return draw.sample([*asked[0], *draw.choice(asked[1:])], 2)


def conversation(name: str, asked: list[Question]) -> Row:
    """A picture, and questions about it one after the other."""
    messages = []
    for question, answer in asked:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"image": name, "messages": messages}


def shape_rows(folder: Path, count: int, seed: int) -> tuple[list[Row], list[Row], list[Question]]:
    """Conversations to learn from, held-out questions, and the questions of the conversations."""
    draw = random.Random(seed)
    train, held_out, blind = [], [], []
    for number in range(count):
        shapes, background = scene(draw), draw.randint(225, 255)
        name = f"shapes/{number:05}.png"
        drawn(shapes, background).save(folder / name)
        asked = questions(shapes)
        if int.from_bytes(hashlib.sha256(repr(sorted(shapes)).encode()).digest()[:4], "big") % 100 < HELD_OUT:
            some = of_one_shape(asked, draw)
            held_out += [{"image": name, "question": question, "answer": answer} for question, answer in some]
        else:
            some = one_of_each(asked, draw)
            train.append(conversation(name, some))
            blind += some
    return train, held_out, blind


def digit_rows(folder: Path, seed: int) -> tuple[list[Row], list[Row], list[Question]]:
    """The same of digits, each to learn from also moved a little."""
    from sklearn.datasets import load_digits

    draw = random.Random(seed)
    images, labels = load_digits(return_X_y=True)
    border = len(images) * 4 // 5
    train, held, blind = [], [], []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        large = np.kron(255 - image.reshape(8, 8) * (255 / 16), np.ones((SCALE, SCALE))).astype(np.uint8)
        held_out = number >= border
        for copy in range(1 if held_out else 1 + MOVED):
            moved = large
            if copy:
                shift = draw.randint(-2, 2), draw.randint(-2, 2)
                moved = np.roll(np.pad(large, 4, constant_values=255), shift, axis=(0, 1))[4:-4, 4:-4]
            name = f"digits/{number:05}-{copy}.png"
            Image.fromarray(moved).save(folder / name)
            if held_out:
                held.append({"image": name, "question": DIGIT, "answer": str(label)})
            else:
                train.append(conversation(name, [(DIGIT, str(label))]))
                blind.append((DIGIT, str(label)))
    return train, held, blind


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
    asked = [*shapes[2], *digits[2]]
    lines = [f"user\n{question}\nassistant\n{answer}\n" for question, answer in dict.fromkeys(asked)] * 20
    random.Random(given.seed).shuffle(lines)
    blind = [{"question": question, "answer": answer, "id": number} for number, (question, answer) in enumerate(asked)]
    parts = {"train": train, "shapes": shapes[1][:1000], "digits": digits[1], "blind": blind}
    for name, rows in parts.items():
        (given.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (given.folder / "text.txt").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
