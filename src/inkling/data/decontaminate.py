"""Text that must not be trained on, because models are measured by it: runs of words in common with a benchmark.

The test is that of GPT-3 (Brown et al., arXiv:2005.14165, appendix C): a run of 13 words in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from inkling.data.documents import Document, read_documents
from inkling.data.shingles import shingles
from inkling.errors import DataError

RUN_WORDS = 13
_BITS = 20


class Benchmark:
    """The runs of words of benchmark texts."""

    def __init__(self, documents: Iterable[Document]) -> None:
        names, runs = [], []
        for document in documents:
            text = "\n".join([document.text, *_strings(document.metadata)])
            found, _ = shingles([text.encode()], RUN_WORDS)
            runs.append(found)
            names += [document.id] * len(found)
        hashes = np.concatenate([np.empty(0, np.uint64), *runs])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._names = [names[index] for index in first]
        self._filter = np.zeros(1 << _BITS, bool)
        self._filter[self._hashes >> np.uint64(64 - _BITS)] = True

    @classmethod
    def read(cls, paths: Sequence[str]) -> Benchmark:
        """From files of any format. Raises DataError when there is no text in them."""
        benchmark = cls(read_documents(paths))
        if not len(benchmark._hashes):
            raise DataError(f"there is no text to keep out in {', '.join(paths)}")
        return benchmark

    def find(self, text: str) -> str | None:
        """What a text has in common with the benchmark, for people; None when it has nothing."""
        runs, _ = shingles([text.encode()], RUN_WORDS)
        suspected = runs[self._filter[runs >> np.uint64(64 - _BITS)]]
        places = np.searchsorted(self._hashes, suspected)
        places[places == len(self._hashes)] = 0
        hits = places[self._hashes[places] == suspected]
        return f"{len(hits)} runs of {RUN_WORDS} words as in {self._names[hits[0]]}" if len(hits) else None


def _strings(value: object) -> list[str]:
    """All strings in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.values() for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return []
