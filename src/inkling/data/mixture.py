"""Several data folders as one, each with a share of what is trained on. The mixture is a folder of its own, which names
the others and copies nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkling import files
from inkling.data.shards import FORMAT_VERSION, MANIFEST_FILE, Dataset, manifest_sha256
from inkling.errors import DataError

_TIMES = re.compile(r"(\d+(?:\.\d+)?)x")


@dataclass(frozen=True)
class Ingredient:
    """A folder in a mixture.

    Attributes:
        share: Of all windows; None when it follows from the tokens.
        times: How often its tokens count.
    """

    folder: Path
    share: float | None
    times: float


def parse(text: str) -> Ingredient:
    """`FOLDER`, `FOLDER=0.3` (that share of the windows) or `FOLDER=2x` (its tokens count twice).

    Raises DataError for anything else after the `=`.
    """
    folder, separator, amount = text.rpartition("=")
    if not separator:
        return Ingredient(Path(text), None, 1.0)
    times = _TIMES.fullmatch(amount)
    if times and float(times.group(1)) > 0:
        return Ingredient(Path(folder), None, float(times.group(1)))
    try:
        share = float(amount)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise DataError(f"{text}: say a share between 0 and 1, such as {folder}=0.3, or passes, such as {folder}=2x")
    return Ingredient(Path(folder), share, 1.0)


def shares(ingredients: list[Ingredient], num_tokens: list[int]) -> list[float]:
    """The share of each, which sum to 1: what is given, and the rest by tokens.

    Raises DataError when the shares that are given leave nothing for the others, or do not sum to 1 without others.
    """
    given = sum(one.share for one in ingredients if one.share is not None)
    weights = [n * one.times if one.share is None else 0.0 for one, n in zip(ingredients, num_tokens, strict=True)]
    total = sum(weights)
    if total and given >= 1:
        raise DataError(f"the shares sum to {given:g}, which leaves nothing for the folders without one")
    if not total and abs(given - 1) > 1e-6:
        raise DataError(f"the shares sum to {given:g} instead of 1; leave one out to give it the rest")
    rest = (1 - given) / total if total else 0.0
    return [weight * rest if one.share is None else one.share for one, weight in zip(ingredients, weights, strict=True)]


def mix(texts: list[str], out: Path) -> dict[str, Any]:
    """Write the folder `out` that mixes data folders; its manifest.

    Args:
        texts: Each as `parse` reads it.

    Raises:
        DataError: A folder is missing or has another tokenizer than the first, the shares make no sense, or `out`
            holds something else.
    """
    ingredients = [parse(text) for text in texts]
    if len(ingredients) < 2:
        raise DataError("a mixture has at least two data folders")
    datasets = [Dataset.open(one.folder) for one in ingredients]
    first = datasets[0]
    for dataset in datasets:
        if "mixture" in dataset.manifest:
            raise DataError(f"{dataset.folder} is a mixture itself: name its folders instead")
        if dataset.tokenizer_sha256 != first.tokenizer_sha256:
            raise DataError(
                f"{dataset.folder} has another tokenizer than {first.folder}. Prepare it again with --tokenizer "
                f"{first.folder}"
            )
    if out.exists() and any(out.iterdir()) and not _is_mixture(out):
        raise DataError(f"{out} holds something else; choose another -o")
    found = shares(ingredients, [dataset.train.num_tokens for dataset in datasets])
    folders = [one.folder.resolve() for one in ingredients]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise DataError(f"{twice[0]} is named twice: name it once, with its share, or =2x for two passes")
    manifest = {
        "format_version": FORMAT_VERSION,
        **{key: first.manifest[key] for key in ("dtype", "vocab_size", "tokenizer_sha256", "eot_id")},
        "mixture": [
            {
                "folder": os.path.relpath(dataset.folder.resolve(), out.resolve()),
                "share": share,
                "num_tokens": dataset.train.num_tokens,
                "manifest_sha256": manifest_sha256(dataset.folder),
            }
            for dataset, share in zip(datasets, found, strict=True)
        ],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(first.folder / name, out / name)
    files.write_json(out / MANIFEST_FILE, manifest)
    return manifest


def _is_mixture(folder: Path) -> bool:
    try:
        return "mixture" in json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
