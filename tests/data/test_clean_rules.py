"""Every rule on its own: it drops what it is for, and keeps what looks like it; the profiles; cleaning twice."""

from __future__ import annotations

import base64
import pickle
import unicodedata
from collections import Counter
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkling.data.clean import Cleaning, Profile, artefacts, clean, normalise
from inkling.data.clean.boilerplate import remove_boilerplate, remove_unfinished_lines
from inkling.data.clean.characters import remove_invisible
from inkling.data.clean.rules import RULES
from inkling.data.documents import Document, Skipped

WORDS = """the river ran slowly under an old bridge and that evening three tired travellers with heavy bags came to
rest beside it while children of village people watched from windows before supper nobody knew what they wanted but all
were curious have been told to stay quiet inside until morning light returned over distant hills"""
VOCABULARY = WORDS.split()


def prose(seed: int, num_sentences: int = 12) -> str:
    """English-like sentences, each on its line, without repetition."""
    random = np.random.default_rng(seed)
    sentences = [
        " ".join(random.choice(VOCABULARY, random.integers(8, 15), replace=False)) for _ in range(num_sentences)
    ]
    return "\n".join(sentence.capitalize() + "." for sentence in sentences)


POEM = """Tyger Tyger, burning bright,
In the forests of the night;
What immortal hand or eye,
Could frame thy fearful symmetry?

In what distant deeps or skies,
Burnt the fire of thine eyes?
On what wings dare he aspire?
What the hand, dare seize the fire?

Tyger Tyger burning bright,
In the forests of the night:
What immortal hand or eye,
Dare frame thy fearful symmetry?
"""
LIST = "Shopping\n\n" + "\n".join(f"- {thing}" for thing in WORDS.split()[:12])
DIALOGUE = "\n".join(["“No.”", "“Yes.”", "“No…”", "“Yes!”", "She left…", "“No.”"] * 3) + "\nThat was all.\n"
TABLE = "| year | rain | sun |\n| --- | --- | --- |\n" + "\n".join(
    f"| {y} | {y % 7}.5 | {y % 5} |" for y in range(1980, 2020)
)
CHINESE = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 2
THAI = "กาลครั้งหนึ่งนานมาแล้วมีเด็กคนหนึ่งอาศัยอยู่ริมแม่น้ำกับยายของเขา ทุกเช้าเขาเดินไปตลาดเพื่อซื้อปลาและผัก"
CODE_LIKE = "Call `f(x)` first:\n\n    for (i = 0; i < n; i++) { total += a[i]; }\n\nThen print the total and stop.\n"
HEADINGS = "\n".join(f"# {n}\n## Part {n}.1\n\nA short note about the number {n}.\n" for n in range(9))
NOTES = {
    "poem": POEM, "list": LIST, "dialogue": DIALOGUE, "table": TABLE, "chinese": CHINESE, "thai": THAI,
    "code-like": CODE_LIKE, "headings": HEADINGS, "one word": "Milk", "book": prose(1, 9000),
}  # fmt: skip


def reason(text: str, profile: Profile = "prose") -> str | None:
    result = clean(Document(text, "a.txt"), Cleaning(profile))
    return result.reason if isinstance(result, Skipped) else None


def rule(profile: str, code: str, text: str) -> bool:
    """Whether a rule with this reason code would drop the text."""
    return any(drops(text) for name, drops in RULES[profile] if name == code)


@pytest.mark.parametrize("kind", NOTES)
def test_notes_of_people_are_kept_as_they_are(kind: str) -> None:
    result = clean(Document(NOTES[kind], "a.txt", {"author": "me"}), Cleaning())
    assert result == Document(NOTES[kind], "a.txt", {"author": "me"})


def test_good_web_text_is_kept_in_the_web_profile() -> None:
    assert reason(prose(2), "web") is None
    assert reason(CHINESE, "web") is None
    assert reason(THAI * 3, "web") is None


WEB_TARGETS = {
    "length": "The cat sat. The dog ran. The bird flew.",
    "word_length": "\n".join("a b " * 8 + f"{chr(97 + n)} the of c." for n in range(12)),
    "symbol_ratio": prose(3).replace(" ", " #", 40),
    "bullets": "\n".join("- " + line for line in prose(4).split("\n")),
    "ellipses": "\n".join(line + ".." for line in prose(5).split("\n")),
    "few_letters": "\n".join(f"{line} 12 13 14 15 16 17 18." for line in prose(6).split("\n")),
    "few_stop_words": " ".join(f"shoes{chr(97 + n % 26)}{chr(97 + n // 26)} cheap" for n in range(80)),
    "repeated_lines": prose(7) + "\n" + "\n".join([prose(8, 1)] * 8),
    "repeated_paragraphs": "\n\n".join([prose(9, 4), prose(10, 4), prose(9, 4), prose(9, 4)]),
    "top_ngram": prose(11).replace(" and ", " buy this now ").replace(" the ", " buy this now ")
    + " buy this now" * 30
    + ".",
    "duplicate_ngrams": prose(12, 6) + " So. " + prose(12, 6).replace("\n", " "),
    "lorem_ipsum": prose(13) + "\nLorem ipsum dolor sit amet, consectetur adipiscing elit.",
    "curly_brace": prose(14) + "\nThen it was { and nothing more than that.",
    "few_sentences": prose(15).replace(".\n", " "),
}


@pytest.mark.parametrize("code", WEB_TARGETS)
def test_a_rule_of_the_web_profile_drops_its_target_and_keeps_prose(code: str) -> None:
    assert rule("web", code, WEB_TARGETS[code])
    assert not rule("web", code, prose(16))
    assert not rule("web", code, CHINESE)
    assert reason(WEB_TARGETS[code], "web") is not None


def gopher_repetition(text: str) -> dict[str, bool]:
    """Table A1 of the paper, counted in the plainest way."""
    words, result = text.split(), {}
    result["top_ngram"] = False
    for n, share in ((2, 0.2), (3, 0.18), (4, 0.16)):
        grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
        top, count = grams.most_common(1)[0]
        result["top_ngram"] |= count > 1 and len(top) * count > share * len(text)
    result["duplicate_ngrams"] = False
    for n in range(5, 11):
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for i in range(len(words) - n + 1):
            gram = tuple(words[i : i + n])
            if gram in seen:
                covered |= set(range(i, i + n))
            seen.add(gram)
        result["duplicate_ngrams"] |= sum(len(words[i]) for i in covered) > (0.20 - 0.01 * n) * len(text) + 1e-9
    return result


@pytest.mark.parametrize("seed", range(25))
def test_shares_of_ngrams_are_those_of_the_paper(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = prose(100 + seed, 10).split("\n")
    text = " ".join(parts + [parts[0]] * int(random.integers(0, 4)) + ["it is"] * int(random.integers(0, 60)))
    for code, expected in gopher_repetition(text).items():
        assert rule("web", code, text) == expected, code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\n".join([prose(17, 3)] * 40), "repetitive"),
        ("\n\n".join([prose(18, 3) + "\n" + str(n % 2) for n in range(40)]), "repetitive"),
        ("# # # # # word " * 40, "symbol_ratio"),
        ("\n".join(line + ".." for line in prose(19).split("\n")), "ellipses"),
    ],
)
def test_prose_drops_only_what_is_far_from_it(text: str, code: str) -> None:
    assert reason(text) == code


BOILERPLATE = [
    "We use cookies to improve your experience on our site.",
    "This website uses cookies. Learn more",
    "By continuing to use this site, you agree to our use of cookies.",
    "Accept all cookies",
    "© 2021 Example Ltd. All rights reserved.",
    "ALL RIGHTS RESERVED",
    "Subscribe to our newsletter",
    "Sign up for our weekly newsletter and never miss a post!",
    "JavaScript is disabled. For a better experience, please enable JavaScript in your browser.",
    "Please enable JavaScript to view the comments.",
    "Click here to download the form",
    "Share on Facebook",
    "Share on Facebook | Twitter | Email",
    "Home | About us | Contact",
    "Home > News > Archive",
    "  Skip to content  ",
    "Back to top",
    "« Older posts | Newer posts »".replace("« ", "").replace(" »", ""),
]
NOT_BOILERPLATE = [
    "“Click here to begin,” she read aloud, and her hand stopped.",
    "He told them to share on Facebook whatever they found.",
    "The cookies that we use are baked with butter.",
    "We use cookie cutters for the dough.",
    "At home | it was dark.",
    "Home",
    "Contact with the tower was lost, and all rights reserved to the crown were given up.",
    "Subscribe to nothing, said the old man.",
    "JavaScript is a programming language.",
    "They went back to the top of the hill.",
]


@pytest.mark.parametrize("line", BOILERPLATE)
def test_lines_of_web_sites_are_removed(line: str) -> None:
    text = f"{prose(20, 2)}\n{line}\n{prose(21, 2)}"
    assert remove_boilerplate(text) == (f"{prose(20, 2)}\n{prose(21, 2)}", 1)


@pytest.mark.parametrize("line", NOT_BOILERPLATE)
def test_lines_that_look_like_those_of_web_sites_stay(line: str) -> None:
    text = f"{prose(20, 2)}\n{line}\n{prose(21, 2)}"
    assert remove_boilerplate(text) == (text, 0)


def test_lines_of_web_sites_at_the_edges_and_alone() -> None:
    assert remove_boilerplate("Share on Facebook\nText\nBack to top\nShare on Facebook") == ("Text", 3)
    assert remove_boilerplate("Share on Facebook\n\nBack to top") == ("Share on Facebook\n\nBack to top", 0)


def test_c4_keeps_lines_that_are_sentences() -> None:
    good = ["Five words are enough here.", "Is this a whole sentence?", '"It was all she said."', ""]
    bad = [
        "A heading of many words",
        "Too short.",
        "This one trails off and...",
        "You should switch on Javascript here.",
    ]
    assert remove_unfinished_lines("\n".join([*bad[:2], *good, *bad[2:]])) == ("\n".join(good), 4)
    assert remove_unfinished_lines(THAI) == (THAI, 0)


def test_invisible_characters_go_where_they_mean_nothing() -> None:
    assert remove_invisible("in\u00advisi\u200bble") == ("invisible", 2)
    khmer = "ខ្ញុំ\u200bទៅ\u200bផ្សារ"
    assert remove_invisible(khmer) == (khmer, 0)
    persian, family = "می\u200cخواهم", "👩\u200d👧"
    assert remove_invisible(persian + family) == (persian + family, 0)


def test_changes_are_counted_and_only_of_what_is_kept() -> None:
    counts: Counter[str] = Counter()
    text = "a cafÃ© in it\r\nShare on Facebook\r\ne\u0301 \x00so\u00adft, a@b.org and c@d.org\r\n"
    result = clean(Document(text, "a.txt"), Cleaning("prose", mask_personal=True), counts)
    assert result == Document("a café in it\né soft, <EMAIL> and <EMAIL>\n", "a.txt")
    assert counts == {
        "mojibake": 1, "line_end": 3, "control_character": 1, "unicode_form": 1, "invisible_character": 1,
        "masked_email": 2, "boilerplate_line": 1,
    }  # fmt: skip
    before = counts.copy()
    assert isinstance(clean(Document("404: Not Found\r\n", "a.txt"), Cleaning(), counts), Skipped)
    assert counts == before


def test_code_keeps_its_strings() -> None:
    source = 's = "cafÃ©"  # soft\u00adhyphen\n# Share on Facebook\n# All rights reserved\n'
    assert clean(Document(source, "a.py"), Cleaning()) == Document(source, "a.py")


def test_lone_surrogates_are_removed() -> None:
    assert clean(Document("a\ud800b", "a.txt"), Cleaning()) == Document("ab", "a.txt")


def test_cleaning_travels_to_other_processes() -> None:
    cleaning = Cleaning("web", True, ("en", "de"))
    assert pickle.loads(pickle.dumps(cleaning)) == cleaning
    assert set(get_args(Profile)) == {"auto", *RULES}


PIECES = st.sampled_from(
    [
        "Ã©",
        "Â",
        "â€™",
        "Ã",
        "©",
        "é",
        "\x85",
        "\r",
        "\n",
        "\x9d",
        " ",
        "\u0301",
        "\u00ad",
        "\u200b",
        "ก",
        "{",
        "#",
        "...",
    ]
    + ["Share on Facebook", "\nAll rights reserved\n", "click here to ", "The dog is in the garden."]
    + ["a@b.org", "+49 89 1234567", "-----BEGIN PRIVATE KEY-----"]
)


@given(
    st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join)), st.sampled_from(get_args(Profile)), st.booleans()
)
def test_cleaning_twice_is_cleaning_once(raw: str, profile: Profile, mask: bool) -> None:
    cleaning = Cleaning(profile, mask)
    once = clean(Document(raw, "a.txt"), cleaning)
    if isinstance(once, Document):
        counts: Counter[str] = Counter()
        assert clean(once, cleaning, counts) == once
        assert not counts
        if profile != "none":
            assert unicodedata.is_normalized("NFC", once.text)
            assert normalise(once.text) == once.text


@given(st.text(alphabet=st.characters(codec=None), max_size=30), st.sampled_from(get_args(Profile)))
def test_no_text_is_an_error(raw: str, profile: Profile) -> None:
    """Lone surrogates too, which JSON can hold and UTF-8 cannot."""
    result = clean(Document(raw, "a.txt"), Cleaning(profile, mask_personal=True))
    if isinstance(result, Document):
        assert result.text.encode().decode() == result.text


def test_base64_is_found_when_it_is_wrapped_too() -> None:
    data = np.random.default_rng(0).bytes(5000)
    assert artefacts.is_encoded(base64.encodebytes(data).decode())
    assert not artefacts.is_encoded("A line of prose that is as long as a line of base64 would be, and more so.\n" * 60)


def test_a_row_that_passes_through_is_masked_like_its_text() -> None:
    row = {"messages": [{"role": "user", "content": "write to ann@mail.example.org", "n": 1}]}
    result = clean(Document("write to ann@mail.example.org", "a", {"row": row}), Cleaning("prose", mask_personal=True))
    assert isinstance(result, Document)
    assert result.metadata == {"row": {"messages": [{"role": "user", "content": "write to <EMAIL>", "n": 1}]}}
    assert "ann@" in row["messages"][0]["content"]
