"""Lines that belong to a web page and not to its text."""

from __future__ import annotations

import re
from collections import Counter

_PHRASES = (
    r"(?:©|copyright|\(c\)).{0,60}all rights reserved\.?",
    r"all rights reserved\.?",
    r"(?:we|this (?:web)?site) uses? cookies.{0,160}",
    r"by (?:continuing|using) .{0,60}you (?:agree|consent) to .{0,60}cookies.{0,60}",
    r"(?:accept|reject|manage) (?:all )?cookies",
    r"(?:please )?(?:enable|turn on) javascript.{0,80}",
    r"javascript (?:is|must be|seems to be) (?:disabled|enabled|required).{0,80}",
    r"(?:sign up|subscribe) (?:to|for) our (?:e-?mail )?newsletter.{0,80}",
    r"(?:share|tweet|pin|like) (?:this )?(?:on|to) (?:facebook|twitter|x|linkedin|pinterest|reddit|whatsapp).{0,20}",
    r"follow us on (?:facebook|twitter|x|instagram|linkedin|youtube).{0,40}",
    r"(?:terms (?:of (?:use|service)|and conditions)|privacy policy)(?: *[|·•/-] *(?:terms|privacy|contact).{0,20})*",
    r"skip to (?:main )?content",
    r"back to (?:the )?top",
    r"(?:log ?in|sign in) or (?:register|sign up).{0,40}",
    r"click here (?:to|for) .{0,60}",
    r"you (?:must|need to) be logged in to .{0,60}",
    r"your e-?mail address will not be published\.?.{0,60}",
    r"powered by (?:wordpress|blogger|drupal|shopify|disqus).{0,30}",
)
_MARKS = " \t>*|•·-"
_LINE = re.compile(rf"(?:{'|'.join(_PHRASES)})[ \t|•·]*", re.IGNORECASE)
_BEGINNINGS = {
    *(
        "©",
        "cop",
        "(c)",
        "all",
        "we ",
        "thi",
        "by ",
        "acc",
        "rej",
        "man",
        "ple",
        "ena",
        "tur",
        "jav",
        "sig",
        "sub",
        "sha",
    ),
    *("twe", "pin", "lik", "fol", "ter", "pri", "ski", "bac", "log", "cli", "you", "pow"),
}
"""How the phrases begin: most lines are told by it at once."""
_MAX_LINE_CHARACTERS = 300


def lines(text: str, counts: Counter[str]) -> str:
    """Without cookie notices, calls to subscribe and the like, each on a line of its own."""
    parts = text.split("\n")
    kept = [line for line in parts if len(line) > _MAX_LINE_CHARACTERS or not _is_boilerplate(line)]
    count = len(parts) - len(kept)
    if not count or not any(line.strip() for line in kept):
        return text
    counts["boilerplate_line"] += count
    return "\n".join(kept)


def _is_boilerplate(line: str) -> bool:
    line = line.lstrip(_MARKS)
    return (line[:3].lower() in _BEGINNINGS or line[:1] == "©") and _LINE.fullmatch(line) is not None
