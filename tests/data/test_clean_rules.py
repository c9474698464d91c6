"""Rules of cleaning: what each is for, what looks like it and stays, and the same text again after cleaning twice."""

from __future__ import annotations

import base64
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import words
from inkling.data.clean import Cleaning, Profile, boilerplate, clean, judge, language, normalise, personal, web
from inkling.data.documents import Document, Skipped
from inkling.errors import DataError

PAGE = "\n".join(
    f"The {name} of the town was old, and people said that it had been built with stone from the river. Nobody knew."
    for name in ("bridge", "church", "market", "school", "tower", "mill", "harbour", "garden", "road", "wall")
)


@pytest.mark.parametrize(
    "original",
    [
        "café, naïve, Ångström",
        "“Don’t”, she said — twice…",
        "Größe: 5 €",
        "日本語の文章",
        "Ελληνικά γράμματα",
        "😀 and 🎉 go",
    ],
)
@pytest.mark.parametrize("rounds", [1, 2])
def test_utf8_read_as_another_encoding_is_repaired_as_ftfy_does(original: str, rounds: int) -> None:
    ftfy = pytest.importorskip("ftfy")
    garbled = original
    for _ in range(rounds):
        garbled = garbled.encode().decode("sloppy-windows-1252")
    counts: Counter[str] = Counter()
    assert normalise.mojibake(garbled, counts) == original
    assert ftfy.fix_encoding(garbled) == original
    assert counts["mojibake"] > 0


@pytest.mark.parametrize(
    "meant", ["São Paulo – Ã is a letter", "Ã© once", "“quoted” … text", "Ωμέγα", "naïve café", "Â§ 5"]
)
def test_what_is_meant_is_not_repaired(meant: str) -> None:
    assert normalise.mojibake(meant, Counter()) == meant


def test_invisible_characters_and_boilerplate_lines_are_removed_and_counted() -> None:
    counts: Counter[str] = Counter()
    text = "We use cookies to improve.\nA soft\u00adhyphen\u200b and cookies in a jar.\nSubscribe to our newsletter!\n"
    result = clean(Document(text + "© 2024 Someone. All rights reserved.", "a.txt"), Cleaning("prose"), counts)
    assert isinstance(result, Document)
    assert result.text == "A softhyphen and cookies in a jar."
    assert counts == {"invisible_character": 2, "boilerplate_line": 3}
    assert boilerplate.lines("Click here to start", Counter()) == "Click here to start"  # nothing else would be left


@pytest.mark.parametrize(
    "text",
    [
        "Sign in or sign out: the two commands of the shell, with their options.",
        "He clicked, and the page said: click here to win. He did not.",
        "The terms of service of a knight were forty days a year.",
        "share the bread on Sunday",
    ],
)
def test_sentences_with_the_words_of_boilerplate_stay(text: str) -> None:
    assert boilerplate.lines(f"{text}\nMore.", Counter()) == f"{text}\nMore."


def test_encoded_text_is_found_on_one_line_and_wrapped() -> None:
    data = random.Random(0).randbytes(3000)
    wrapped = base64.encodebytes(data).decode()
    assert judge.is_encoded(base64.b64encode(data).decode())
    assert judge.is_encoded(wrapped)
    assert judge.is_encoded(", ".join(f"0x{byte:02x}" for byte in data))
    assert judge.is_encoded("".join(f"\\x{byte:02x}" for byte in data))
    assert not judge.is_encoded(PAGE + "\n" + wrapped[:500])
    assert not judge.is_encoded("\n".join(f"https://example.org/{'long/' * 12}{n}" for n in range(60)))
    assert not judge.is_encoded("これは文章です。" * 300)


SECRETS = {
    "email": ["ann.lee+x@mail.example.org", "a_b@x-y.co.uk"],
    "phone": ["+49 30 1234567", "+1 (212) 555 0199", "(212) 555-0199", "212-555-0199"],
    "ip": ["8.8.4.4", "2001:db8:85a3::8a2e:370:7334"],
    "card": ["4111 1111 1111 1111", "5500-0000-0000-0004"],
    "iban": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "key": [
        "AKIA" + "ABCDEFGH23456789",
        "ghp_" + "a1B2" * 9,
        "xoxb-" + "1234567890-abcdef",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
    ],
}


@pytest.mark.parametrize(("kind", "secret"), [(kind, secret) for kind, some in SECRETS.items() for secret in some])
def test_personal_data_is_masked_when_asked(kind: str, secret: str) -> None:
    counts: Counter[str] = Counter()
    result = clean(Document(f"Here: {secret}, and so on.", "a.txt"), Cleaning("prose", mask_personal=True), counts)
    assert isinstance(result, Document)
    assert result.text == f"Here: <{kind.upper()}>, and so on."
    assert counts == {f"masked_{kind}": 1}
    kept = clean(Document(f"Here: {secret}, and so on.", "a.txt"), Cleaning("prose"))
    assert isinstance(kept, Document)
    assert secret in kept.text


@pytest.mark.parametrize(
    "text",
    [
        *("version 1.2.3.4.5", "127.0.0.1 and 999.1.1.1", "10:30:15", "2024-05-12 and 12.05.2024", "978-3-16-148410-0"),
        *("4111 1111 1111 1112", "3.14159265358979", "d41d8cd98f00b204e9800998ecf8427e", "@decorator", "a @ b"),
        *(
            "DE89 3704 0044 0532 0130 01",
            "1,234,567.89",
            "1 2 3 4 5 6 7 8 9",
            "std::vector<int>::iterator",
            "100 200 300",
        ),
    ],
)
def test_numbers_that_are_nobodys_stay(text: str) -> None:
    assert personal.mask(text, Counter()) == text


@pytest.mark.parametrize(
    ("test", "bad"),
    [
        (web.is_lorem_ipsum, PAGE + "Lorem ipsum dolor"),
        (web.has_curly_braces, PAGE + "if (a) { b }"),
        (web.has_few_sentences, "One. Two. Three. Four."),
        (web.has_unusual_number_of_words, "word " * 49),
        (web.has_unusual_words, "a b " * 100),
        (web.has_many_symbols, "#word " * 100),
        (web.is_bullets, "- word\n" * 30),
        (web.is_ellipses, "and so on...\n" * 30),
        (web.has_words_without_letters, "12 34 word " * 30),
        (web.has_no_stop_words, "buy cheap now " * 30),
        (web.repeats_lines, PAGE + "\n" + PAGE),
        (web.repeats_words, PAGE + " very good " * 60),
        (judge.is_repetitive, "again\n" * 30),
        (judge.is_symbols, "=-=-" * 100),
        (judge.is_minified, "a=1;" * 1000),
    ],
)
def test_each_test_of_pages_drops_what_it_is_for_and_keeps_a_good_page(test: Callable[[str], bool], bad: str) -> None:
    assert test(bad)
    assert not test(PAGE)


def test_a_good_page_passes_the_web_profile_also_without_spaces_between_words() -> None:
    assert isinstance(clean(Document(PAGE, "a.html"), Cleaning("web")), Document)
    chinese = (
        "。\n".join(f"这个城市的第{n}座桥很古老，人们说它是用河里的石头建成的" for n in "一二三四五六七八九十") + "。"
    )
    assert isinstance(clean(Document(chinese, "a.html"), Cleaning("web")), Document)
    dropped = clean(Document("word " * 10, "a.html"), Cleaning("web"))
    assert isinstance(dropped, Skipped)
    assert dropped.reason == "few_sentences"


@pytest.mark.parametrize(
    "text",
    [
        "Roses are red,\nviolets are blue.\n\nSugar is sweet,\nand so are you.",
        "- milk\n- eggs\n- bread\n- call Ann",
        "“Yes.”\n“No.”\n“Yes!”\n“No!”",
        "| a | b |\n|---|---|\n| 1 | 2 |\n" * 3,
        "x",
        "2 + 2 = 4",
    ],
)
def test_notes_lists_poems_and_tables_are_prose(text: str) -> None:
    assert isinstance(clean(Document(text, "notes.txt"), Cleaning("auto")), Document)


def test_documents_in_other_languages_are_dropped_when_asked() -> None:
    pytest.importorskip("py3langid")
    german = "Der Fluss war breit, und niemand wusste, wie tief er an dieser Stelle war. Die Leute gingen nach Hause."
    assert isinstance(clean(Document(PAGE, "a"), Cleaning("prose", languages=("en",))), Document)
    dropped = clean(Document(german, "a"), Cleaning("prose", languages=("en", "fr")))
    assert isinstance(dropped, Skipped)
    assert dropped.reason == "language"
    assert language.identify(german) == "de"
    with pytest.raises(DataError, match="there is no language 'xx'"):
        language.check_codes(["en", "xx"])


ANY_TEXT = st.text(max_size=200) | st.lists(
    st.sampled_from(
        ["Ã©", "â€™", "word ", "\n", "a@b.co ", "+49 30 1234567", "© All rights reserved", "\u200b", "\r", "e\u0301"]
    )
).map("".join)


@pytest.mark.parametrize("profile", ["prose", "web", "code"])
@given(text=ANY_TEXT, mask=st.booleans())
def test_cleaning_twice_is_cleaning_once(profile: Profile, text: str, mask: bool) -> None:
    cleaning = Cleaning(profile, mask_personal=mask)
    once = clean(Document(text, "a.txt"), cleaning)
    if isinstance(once, Document):
        assert clean(once, cleaning) == once
    assert isinstance(clean(Document(words(1, 50) + text, "a.txt"), cleaning), (Document, Skipped))
