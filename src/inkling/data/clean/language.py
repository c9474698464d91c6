"""Which language a text is written in, by the model of `py3langid` (Lui and Baldwin 2012), an extra."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from inkling.errors import DataError, MissingExtraError, did_you_mean

_CHARACTERS = 1000


def identify(text: str) -> str:
    """ISO 639-1 code of the language that the beginning of a text is most likely written in.

    Raises MissingExtraError when py3langid is not installed.
    """
    code, _ = _identifier().classify(text[:_CHARACTERS])
    return str(code)


def check_codes(codes: Sequence[str]) -> None:
    """Raises DataError when a code is none of a language that can be told."""
    known = set(map(str, _identifier().labels))
    for code in codes:
        if code not in known:
            raise DataError(f"there is no language {code!r}{did_you_mean(code, known)}")


def is_in(text: str, codes: Sequence[str]) -> bool:
    """Whether a text is written in one of the languages."""
    return identify(text) in codes


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingExtraError("py3langid", "language", "--languages") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE)
