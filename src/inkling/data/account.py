"""The account of a preparation: what came in, what was dropped and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

_NUM_EXAMPLES = 3


@dataclass
class Account:
    """What came in, what was dropped and why. `report.json`."""

    num_documents: int = 0
    num_bytes: int = 0
    kept_documents: int = 0
    kept_bytes: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def drop(self, reason: str, num_bytes: int, example: str) -> None:
        """Count a dropped document."""
        self.dropped[reason] += 1
        self.dropped_bytes[reason] += num_bytes
        if len(self.examples[reason]) < _NUM_EXAMPLES:
            self.examples[reason].append(example)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "documents_in": self.num_documents,
            "bytes_in": self.num_bytes,
            "documents_kept": self.kept_documents,
            "bytes_kept": self.kept_bytes,
            "dropped": {
                reason: {"documents": count, "bytes": self.dropped_bytes[reason], "examples": self.examples[reason]}
                for reason, count in self.dropped.most_common()
            },
        }
