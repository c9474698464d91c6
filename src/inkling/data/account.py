"""The account of a preparation: what came in, what was dropped and why, what cleaning changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from inkling.data.documents import Skipped

NUM_EXAMPLES = 3


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
    changes: Counter[str] = field(default_factory=Counter)

    def drop(self, skipped: Skipped) -> None:
        """Count something that was read and dropped."""
        self.num_documents += 1
        self.num_bytes += skipped.num_bytes
        self.drop_some(skipped.reason, 1, skipped.num_bytes, [skipped.example])

    def keep(self, num_documents: int, num_bytes: int) -> None:
        """Count documents that were read and kept so far."""
        self.num_documents += num_documents
        self.num_bytes += num_bytes
        self.kept_documents += num_documents
        self.kept_bytes += num_bytes

    def drop_some(self, reason: str, num_documents: int, num_bytes: int, examples: list[str]) -> None:
        """Count documents under a reason for which they were dropped."""
        self.dropped[reason] += num_documents
        self.dropped_bytes[reason] += num_bytes
        self.examples[reason] += examples[: NUM_EXAMPLES - len(self.examples[reason])]

    def drop_kept(self, reason: str, num_documents: int, num_bytes: int, examples: list[str]) -> None:
        """Drop documents that were counted as kept."""
        if num_documents:
            self.kept_documents -= num_documents
            self.kept_bytes -= num_bytes
            self.drop_some(reason, num_documents, num_bytes, examples)

    def add(self, content: dict[str, Any]) -> None:
        """Add another account in its JSON form."""
        self.num_documents += content["documents_in"]
        self.num_bytes += content["bytes_in"]
        self.kept_documents += content["documents_kept"]
        self.kept_bytes += content["bytes_kept"]
        self.changes.update(content["changes"])
        for reason, dropped in content["dropped"].items():
            self.drop_some(reason, dropped["documents"], dropped["bytes"], dropped["examples"])

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
            "changes": dict(self.changes.most_common()),
        }
