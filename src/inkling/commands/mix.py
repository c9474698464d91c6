"""`inkling mix`: several data folders as one to train on."""

from __future__ import annotations

import json
from pathlib import Path

from inkling.config import CommandSettings, Positional, SettingsConfigDict
from inkling.data.mixture import mix
from inkling.data.shards import Dataset


class Settings(CommandSettings):
    """Mix data folders: each has a share of what is trained on, whatever its size. Nothing is copied.

    All must have the same tokenizer. Validation is that of all of them. FOLDER takes its share by its tokens,
    FOLDER=0.3 has 30 % of the windows, and the tokens of FOLDER=2x count twice: two passes while the others make one.

    Example: inkling mix data/code=0.7 data/notes -o data/both
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    folders: Positional[list[str]]
    """Data folders, with =SHARE or =TIMESx."""
    out: Path
    """Folder of the mixture."""
    as_json: bool = False
    """Print one JSON object."""


def run(settings: Settings) -> None:
    """Write the mixture and say what it is."""
    manifest = mix(settings.folders, settings.out)
    if settings.as_json:
        print(json.dumps({"data": str(settings.out), "mixture": manifest["mixture"]}))
        return
    total = sum(part["num_tokens"] for part in manifest["mixture"])
    names = [part.name for part in Dataset.open(settings.out).parts]
    for name, part in zip(names, manifest["mixture"], strict=True):
        passes = part["share"] * total / part["num_tokens"]
        print(
            f"{part['share']:>6.1%}  {name}: {part['num_tokens']:,} tokens, "
            f"{passes:.2f} passes for each {total:,} tokens of training"
        )
    print(f"Next:  inkling train {settings.out}")
