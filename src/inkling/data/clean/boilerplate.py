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
_LINE = re.compile(rf"[ \t>*|•·-]*(?:{'|'.join(_PHRASES)})[ \t|•·]*", re.IGNORECASE)
_HINTS = (
    *("rights reserved", "cookies", "javascript", "newsletter", " on facebook", " on twitter", " on x", " on linkedin"),
    *(" on pinterest", " on reddit", " on whatsapp", " on instagram", " on youtube", " to facebook", " to twitter"),
    *("privacy policy", "terms of", "terms and", "skip to", "back to top", "back to the top", "login or", "log in or"),
    *("sign in or", "click here", "be logged in", "not be published", "powered by"),
)
_MAX_LINE_CHARACTERS = 300


def lines(text: str, counts: Counter[str]) -> str:
    """Without cookie notices, calls to subscribe and the like, each on a line of its own."""
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    kept = [line for line in text.split("\n") if len(line) > _MAX_LINE_CHARACTERS or not _LINE.fullmatch(line)]
    count = text.count("\n") + 1 - len(kept)
    cleaned = "\n".join(kept)
    if not count or not cleaned.strip():
        return text
    counts["boilerplate_line"] += count
    return cleaned
