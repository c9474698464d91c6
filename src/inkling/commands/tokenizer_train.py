"""`inkling tokenizer train`: a tokenizer from text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from inkling.config import CommandSettings, Field, Positional, SettingsConfigDict
from inkling.data.documents import read_documents
from inkling.data.split import as_digests, content_hash, is_validation
from inkling.errors import DataError
from inkling.progress import LiveProgress
from inkling.tokenizer import DEFAULT_SPECIALS
from inkling.tokenizer.patterns import choose_pattern
from inkling.tokenizer.report import print_report, report
from inkling.tokenizer.train import train_bpe, train_char


class Settings(CommandSettings):
    """Train a tokenizer on text, and report how it treats text that it did not see.

    A tenth of the documents is held back for the report; with a single document the report is on that one, and says so.

    Example: inkling tokenizer train notes/ -o tokenizers/notes --vocab-size 4096
    """

    model_config = SettingsConfigDict(cli_shortcuts={"out": "o"})

    paths: Positional[list[str]]
    """Files, folders or builtin:python."""
    out: Path
    """Folder for tokenizer.json and tokenizer_config.json."""
    vocab_size: int = Field(4096, ge=260)
    """Tokens in all, with the 256 bytes and the special tokens. Not for characters."""
    level: Literal["bpe", "char"] = "bpe"
    """Byte-pair encoding, or one token for each character."""
    pattern: Literal["gpt2", "llama3", "qwen2"] | None = None
    """How text is split. Default: qwen2 below 16,384 tokens, else llama3."""
    digits: Literal["whole", "threes", "single"] | None = None
    """How numbers are cut; the same choice as the pattern: gpt2, llama3 or qwen2."""
    special_tokens: list[str] = Field([])
    """More control tokens, beside <|endoftext|>, <|im_start|> and <|im_end|>."""
    workers: int = Field(1, ge=1)
    """Processes that count."""
    as_json: bool = False
    """Print the report as one JSON object."""


def run(settings: Settings) -> None:
    """Train, save, report."""
    if (settings.out / "tokenizer.json").exists():
        raise DataError(f"{settings.out} already holds a tokenizer; choose another -o")
    pattern = choose_pattern(settings.pattern, settings.digits, settings.vocab_size)
    specials = list(dict.fromkeys([*DEFAULT_SPECIALS, *settings.special_tokens]))
    texts = [document.text for document in read_documents(settings.paths)]
    chosen = is_validation(as_digests([content_hash(text) for text in texts]), 0.1, seed=0)
    held_back = [text for text, is_chosen in zip(texts, chosen, strict=True) if is_chosen]
    training = [text for text, is_chosen in zip(texts, chosen, strict=True) if not is_chosen]
    if not held_back or not training:
        held_back, training = texts, texts
    with LiveProgress(quiet=settings.as_json) as progress:
        if settings.level == "char":
            tokenizer = train_char(training, special_tokens=specials)
        else:
            tokenizer = train_bpe(
                training,
                settings.vocab_size,
                pattern=pattern,
                special_tokens=specials,
                num_workers=settings.workers,
                on_progress=lambda done, total: progress("merging", done, total),
            )
    tokenizer.save(settings.out)
    found = {"tokenizer": str(settings.out), "on_training_text": held_back is texts, **report(tokenizer, held_back)}
    if settings.as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        print_report(found)
        print(f"Next:  inkling prep {' '.join(settings.paths)} --tokenizer {settings.out} -o data/NAME")
