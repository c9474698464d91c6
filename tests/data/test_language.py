"""Language identification: what it says of sentences in known languages, and what is kept in doubt."""

from __future__ import annotations

import sys

import pytest

from inkling.data.clean import Cleaning, clean
from inkling.data.clean.language import _model, check_codes, identify
from inkling.data.documents import Document, Skipped
from inkling.errors import ConfigError, MissingExtraError

SENTENCES = {
    "en": "The children walked along the river until it was too dark to see the other side.",
    "de": "Die Kinder gingen am Fluss entlang, bis es zu dunkel war, um das andere Ufer zu sehen.",
    "fr": "Les enfants marchaient le long de la rivière jusqu’à ce qu’il fasse trop sombre.",
    "ru": "Дети шли вдоль реки, пока не стало слишком темно, чтобы видеть другой берег.",
    "ja": "子供たちは向こう岸が見えなくなるほど暗くなるまで川沿いを歩きました。",
    "th": "เด็ก ๆ เดินไปตามแม่น้ำจนกระทั่งมืดเกินกว่าจะมองเห็นอีกฝั่งหนึ่ง",
}


@pytest.mark.parametrize("code", SENTENCES)
def test_languages_are_told_apart(code: str) -> None:
    pytest.importorskip("py3langid")
    found, confidence = identify(SENTENCES[code])
    assert found == code
    assert 0.5 < confidence <= 1


def test_documents_in_other_languages_are_dropped() -> None:
    pytest.importorskip("py3langid")
    cleaning = Cleaning(languages=("en", "ja"))
    kept = {code for code, text in SENTENCES.items() if isinstance(clean(Document(text, "a.txt"), cleaning), Document)}
    assert kept == {"en", "ja"}
    result = clean(Document(SENTENCES["de"], "a.txt"), cleaning)
    assert isinstance(result, Skipped)
    assert result.reason == "language"


@pytest.mark.parametrize("text", ["Ja!", "12.5 33.1 48.0", "ok", "2024-01-31: 5 km, 32 min"])
def test_text_too_short_to_tell_is_kept(text: str) -> None:
    assert isinstance(clean(Document(text, "a.txt"), Cleaning(languages=("fi",))), Document)


def test_source_code_is_not_judged() -> None:
    text = "def kinder_gehen(fluss):\n    return 'Die Kinder gingen am Fluss entlang, bis es zu dunkel war'\n"
    assert isinstance(clean(Document(text, "a.py"), Cleaning(languages=("en",))), Document)


def test_an_unknown_code_is_an_error() -> None:
    pytest.importorskip("py3langid")
    check_codes(["en", "de"])
    with pytest.raises(ConfigError, match="no language 'english'"):
        check_codes(["english"])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    _model.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtraError, match=r"inkling-lm\[language\]"):
        identify("some text")
