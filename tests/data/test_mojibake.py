"""Repair of mojibake, beside ftfy, and text that only looks like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkling.data.clean.mojibake import repair_mojibake

TEXTS = {
    "french": "L’été dernier, à Noël, nous étions très fatigués ; ça coûte 30 € – peut-être « plus ».",
    "german": "Größere Mädchen hören gern über „Äpfel“ und Öl, auch süße Brötchen für 5 €.",
    "spanish": "¿Qué pasó mañana? El niño comió piñas y bebió café, ¡olé!",
    "polish": "Zażółć gęślą jaźń, bo dziękuję to piękne słowo, a łódź płynie.",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "russian": "Съешь ещё этих мягких французских булок, да выпей чаю.",
    "greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "japanese": "これは日本語の文章です。今日は天気がいいですね。",
    "english": "“It’s fine,” she said — and didn’t look up… 20 °C, £5, ½ cup, naïve café.",
    "emoji": "Well done 😀 and thanks 🎉, see you at the café.",
}


def broken(text: str, encoding: str) -> str:
    """The text's UTF-8 read in another encoding; the bytes that cp1252 leaves open as browsers read them."""
    data = text.encode()
    if encoding == "latin-1":
        return data.decode("latin-1")
    return "".join(
        bytes([byte]).decode("cp1252") if byte not in b"\x81\x8d\x8f\x90\x9d" else chr(byte) for byte in data
    )


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_text_comes_back(language: str, encoding: str) -> None:
    text = TEXTS[language]
    repaired, count = repair_mojibake(broken(text, encoding))
    assert repaired == text
    assert count > 0


@pytest.mark.parametrize("language", TEXTS)
def test_what_ftfy_repairs_is_repaired_alike(language: str) -> None:
    ftfy = pytest.importorskip("ftfy")
    mojibake = broken(TEXTS[language], "cp1252")
    assert repair_mojibake(mojibake)[0] == ftfy.fix_encoding(mojibake)


@pytest.mark.parametrize("language", TEXTS)
def test_text_that_was_read_correctly_stays(language: str) -> None:
    assert repair_mojibake(TEXTS[language]) == (TEXTS[language], 0)


@pytest.mark.parametrize(
    ("mojibake", "text"),
    [
        ("a cafÃ© in the middle of much English text", "a café in the middle of much English text"),
        ("it isnâ€™t", "it isn’t"),
        ("pasted: Ã¼ber, and typed: über", "pasted: über, and typed: über"),
        ("CAFÃ‰ and cafÃ©", "CAFÉ and café"),
        ("caf\u00c3\u0192\u00c2\u00a9", "caf\u00c3\u00a9"),  # twice: one layer at a time
    ],
)
def test_pieces_within_other_text(mojibake: str, text: str) -> None:
    assert repair_mojibake(mojibake)[0] == text


@pytest.mark.parametrize(
    "text",
    [
        "„Das macht Spaß“, sagte er, „viel Spaß“, und noch einmal „Spaß“.",
        "He drank a NESTLÉ® in the CAFÉ™, then another NESTLÉ®, and one more NESTLÉ®.",
        "A MANHÔ “MANHÃ”, “IRMÔ, “AMANHÔ e “LÔ: a letra Ã.",
        "“Il a mangé”… “une olive déjà”—dit-elle",
        "The letters Â and Ã, and «Ã», stand in Portuguese; 5 Å, 3 ß, Ð and þ elsewhere.",
        "Tiếng Việt có dấu: Âu, Ấn, Ã, Â.",
    ],
)
def test_writing_that_looks_like_mojibake_stays(text: str) -> None:
    assert repair_mojibake(text) == (text, 0)


@given(st.text(alphabet="aé ÃÂâ€™œ\x80\x9dðŸ˜€ß“ñ\xa0ÐÑŒ", max_size=40))
def test_any_mixture_is_repaired_without_error(text: str) -> None:
    repaired, count = repair_mojibake(text)
    assert (count == 0) == (repaired == text)
    assert len(repaired) <= len(text)
