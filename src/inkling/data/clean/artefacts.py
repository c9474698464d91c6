"""Rules against what is not a text at all: error pages, encoded data, minified code, symbols."""

from __future__ import annotations

import re
import string

_HTTP_ERROR = re.compile(
    r"\s*(?:<[^>]{0,200}>\s*)*(?:HTTP\s*)?(?:error\s*)?[45]\d\d:?\s*"
    r"(?:not found|forbidden|bad gateway|internal server error|service unavailable|too many requests|unauthorized)",
    re.IGNORECASE,
)
_MIN_RUN = 400
_ENCODED = re.compile(
    rf"[A-Za-z0-9+/=]{{{_MIN_RUN},}}|(?:^[A-Za-z0-9+/=]{{60,}}\n){{6,}}|(?:\\x[0-9a-fA-F]{{2}}){{100,}}|(?:0x[0-9a-fA-F]{{1,8}},?\s*){{200,}}",
    re.MULTILINE,
)
_LETTERS_AND_SPACE = (string.ascii_letters + string.whitespace).encode()


def is_nothing(text: str) -> bool:
    """No character at all."""
    return not text


def is_empty(text: str) -> bool:
    """Nothing but white space."""
    return not text or text.isspace()


def is_http_error(text: str) -> bool:
    """A page that says it is not there (RFC 9110), saved as if it were the text."""
    return len(text) < 2000 and _HTTP_ERROR.match(text) is not None


def is_encoded(text: str) -> bool:
    """More than half of it is base64 (RFC 4648), on one line or wrapped, or tables of numbers."""
    if len(text) < 2 * _MIN_RUN or not (_has_long_run(text) or text.count("\\x") >= 100 or text.count("0x") >= 200):
        return False
    return sum(len(match.group()) for match in _ENCODED.finditer(text)) > len(text) / 2


def _has_long_run(text: str) -> bool:
    """There may be `_MIN_RUN` characters without a space: they would cover a whole window of half that size."""
    step = _MIN_RUN // 2
    return any(text.find(" ", start, start + step) < 0 for start in range(0, len(text) - step, step))


def is_minified(text: str) -> bool:
    """Code in which the average line is longer than anyone writes."""
    return len(text) > 2000 and len(text) / (text.count("\n") + 1) > 300


def is_symbols(text: str) -> bool:
    """Less than a third of the characters are letters or white space."""
    if len(text) <= 200:
        return False
    data = text.encode("ascii", "ignore")
    wanted = len(data) - len(data.translate(None, _LETTERS_AND_SPACE))
    if wanted >= len(text) / 3:
        return False
    return sum(character.isalpha() or character.isspace() for character in text) < len(text) / 3
