"""Project Gutenberg's books without its header and licence, which are the same in seventy thousand of them."""

from __future__ import annotations

import re

_START = re.compile(
    r"^\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*$|^\*END[* ]*THE SMALL PRINT![^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(
    r"^(?:\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK|End of (?:the )?Project Gutenberg(?:'s|’s)? )[^\n]*$",
    re.IGNORECASE | re.MULTILINE,
)
_CREDIT = re.compile(
    r"\s*(?:(?:produced|e-?text prepared|transcribed|scanned) by|transcriber[’']s note)[^\n]*(?:\n[^\n]+)*\n",
    re.IGNORECASE,
)


def strip_licence(text: str) -> str:
    """A book without what stands before and after it; a text without the marks stays as it is."""
    starts = list(_START.finditer(text))
    if not starts:
        return text
    start = starts[-1].end()
    credit = _CREDIT.match(text, start)
    if credit:
        start = credit.end()
    end = _END.search(text, start)
    return text[start : end.start() if end else len(text)].strip("\n") + "\n"
