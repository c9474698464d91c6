"""Which language a text is in, by py3langid: a naive Bayes model over byte n-grams, without a network."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from inkling.errors import ConfigError, MissingExtraError, did_you_mean

_SAMPLE_CHARACTERS = 600
_MIN_LETTERS = 20
_MIN_CONFIDENCE = 0.5


def identify(text: str) -> tuple[str, float]:
    """The language's code (ISO 639) and the confidence in it, 0 to 1, from the text's beginning, middle and end.

    Raises MissingExtraError when py3langid is not installed.
    """
    code, confidence = _model().classify(_sample(text))
    return str(code), float(confidence)


def is_other_language(text: str, wanted: Iterable[str]) -> bool:
    """In none of the languages `wanted`. Text too short to tell, or in doubt, is not."""
    if sum(map(str.isalpha, text[:1000])) < _MIN_LETTERS:
        return False
    code, confidence = identify(text)
    return code not in set(wanted) and confidence >= _MIN_CONFIDENCE


def check_codes(codes: Iterable[str]) -> None:
    """Raises ConfigError when a code is not one of the model's, MissingExtraError when there is no model."""
    known = _model().labels
    for code in codes:
        if code not in known:
            raise ConfigError(f"there is no language {code!r}{did_you_mean(code, known)}")


def _sample(text: str) -> str:
    if len(text) <= 3 * _SAMPLE_CHARACTERS:
        return text
    middle = (len(text) - _SAMPLE_CHARACTERS) // 2
    return "\n".join(text[start : start + _SAMPLE_CHARACTERS] for start in (0, middle, len(text) - _SAMPLE_CHARACTERS))


@lru_cache(maxsize=1)
def _model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtraError("py3langid", "language", "telling languages apart") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
