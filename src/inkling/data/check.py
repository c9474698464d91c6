"""Verifying a finished data folder: nothing altered, everything adds up, nothing of validation in training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inkling.data.leakage import LEAKED_SHARE, RUN_TOKENS, leaked_shares
from inkling.data.shards import Dataset, TokenSplit
from inkling.errors import DataError
from inkling.tokenizer import Tokenizer

_CHUNK_TOKENS = 1 << 22


def check(
    folder: Path, on_progress: Callable[[str, float, float | None, str], None] = lambda *arguments: None
) -> dict[str, Any]:
    """Read everything in a data folder and see that it is what the manifest says.

    Returns what was found, JSON-able: documents and tokens by split, and the share of validation documents of which
    parts stand in the training text.

    Raises:
        DataError: The first thing that is wrong, or validation text that is trained on.
        TokenizerError: The tokenizer is missing or is not the one of the shards.
    """
    dataset = Dataset.open(folder)
    tokenizer = Tokenizer.load(folder)
    dataset.check_tokenizer(tokenizer)
    on_progress("checksums", 0, 1, "")
    dataset.check_checksums()
    on_progress("checksums", 1, 1, "")
    for name, split in (("train", dataset.train), ("validation", dataset.validation)):
        _check_split(folder, name, split, dataset, tokenizer)
    on_progress("leakage", 0, 1, "")
    shares = leaked_shares(dataset.train, dataset.validation)
    on_progress("leakage", 1, 1, "")
    leaked = np.flatnonzero(shares >= LEAKED_SHARE)
    if len(leaked):
        start = dataset.validation.document_ends[leaked[0] - 1] if leaked[0] else 0
        beginning = tokenizer.decode(dataset.validation.tokens(int(start), int(start) + 20).tolist())
        raise DataError(
            f"{len(leaked)} of {len(shares)} validation documents of {folder} stand in its training text "
            f"({shares[leaked[0]]:.0%} of the runs of {RUN_TOKENS} tokens of the one that begins {beginning[:60]!r}). "
            "Prepare it again with --near-duplicates drop --split hash"
        )
    return {
        "data": str(folder),
        "documents": {"train": dataset.train.num_documents, "validation": dataset.validation.num_documents},
        "tokens": {"train": dataset.train.num_tokens, "validation": dataset.validation.num_tokens},
        "validation_documents_partly_in_training": int((shares > 0).sum()),
        "share_of_validation_runs_in_training": float(shares.mean()) if len(shares) else 0.0,
    }


def _check_split(folder: Path, name: str, split: TokenSplit, dataset: Dataset, tokenizer: Tokenizer) -> None:
    """Document ends, token ids and the number of bytes of one split."""

    def refuse(what: str) -> DataError:
        return DataError(f"{name} text of {folder}: {what}. Prepare the folder again with --overwrite")

    if (np.diff(split.document_ends, prepend=0) <= 0).any():
        raise refuse("document ends do not ascend")
    if (split.document_ends[-1] if split.num_documents else 0) != split.num_tokens:
        raise refuse("the last document does not end with the tokens")
    lengths = np.array([len(token) for token in tokenizer.token_bytes])
    num_bytes, num_ends = 0, 0
    for start in range(0, split.num_tokens, _CHUNK_TOKENS):
        tokens = split.read(start, min(start + _CHUNK_TOKENS, split.num_tokens))
        if tokens.max() >= len(lengths):
            raise refuse(f"token {tokens.max()} is not in the vocabulary of {len(lengths):,}")
        num_bytes += int(lengths[tokens].sum())
        is_end = tokens == dataset.eot_id
        ends = np.flatnonzero(is_end) + start + 1
        num_ends += len(ends)
        if not np.isin(ends, split.document_ends).all():
            raise refuse("an end-of-text token stands inside a document")
    if num_ends != split.num_documents:
        raise refuse("a document has no end-of-text token")
    if tokenizer.is_byte_level and not tokenizer.normalizer and num_bytes != split.num_bytes:
        raise refuse(f"its tokens spell {num_bytes:,} bytes instead of {split.num_bytes:,}")
