"""How text becomes a data folder: the options of `prep`."""

from __future__ import annotations

from typing import Literal

from inkling.config import Field, Section
from inkling.data.clean import Profile, check_codes
from inkling.data.plan import NearDuplicates, SplitRule
from inkling.tokenizer import Tokenizer
from inkling.tokenizer.patterns import choose_pattern


class PrepOptions(Section):
    """How text becomes a data folder."""

    tokenizer: str | None = None
    """Use this tokenizer: a folder, a tokenizer.json or tiktoken:NAME. Default: train one on the training text."""
    level: Literal["auto", "bpe", "char"] = "auto"
    """Of a new tokenizer. auto: characters below 3 MB of text, byte-pair encoding above."""
    vocab_size: int | None = Field(None, ge=260)
    """Of a new byte-pair encoding, in tokens. Default: 2,048 to 8,192 by the amount of text."""
    pattern: Literal["gpt2", "llama3", "qwen2"] | None = None
    """How a new tokenizer splits text. Default: qwen2 below 16,384 tokens, else llama3."""
    digits: Literal["whole", "threes", "single"] | None = None
    """How a new tokenizer cuts numbers; the same choice as the pattern: gpt2, llama3 or qwen2."""
    special_tokens: list[str] = Field([])
    """More control tokens of a new tokenizer, beside <|endoftext|>, <|im_start|> and <|im_end|>."""
    text_field: str | None = None
    """Field of JSON, CSV and Parquet rows that holds the text. Default: the first one with a usual name, such as
    text or content, else the longest."""
    clean: Profile = "auto"
    """Cleaning rules. auto: code for source files, prose for the rest. web: as strict as web pages need. none: the
    text as it is."""
    mask_personal: bool = False
    """Replace e-mail addresses, phone, card and account numbers, IP addresses and keys by their kind."""
    languages: list[str] = Field([])
    """Keep only documents in these languages, such as en or de."""
    near_duplicates: NearDuplicates = "drop"
    """Texts that share most of their runs of five words. drop: keep one of them. keep: all, on one side of the split.
    ignore: not looked for."""
    keep_out: list[str] = Field([])
    """Files of benchmark texts: what shares a run of 13 words with them is dropped."""
    split: SplitRule = "auto"
    """Validation text. hash: documents chosen by their content. tail: the end of the last text. auto: hash where there
    are enough documents."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the text that is kept for validation."""
    seed: int = Field(0, ge=0)
    """Seed of the split by hash."""


def check_options(options: PrepOptions) -> None:
    """Raise now what would be raised after hours of reading: TokenizerError, or ConfigError for the languages."""
    if options.tokenizer is not None:
        Tokenizer.load(options.tokenizer).eot_id  # noqa: B018 - raises when there is none
    choose_pattern(options.pattern, options.digits, options.vocab_size or 0)
    if options.languages:
        check_codes(options.languages)
