"""Lines that belong to a web site and not to its text."""

from __future__ import annotations

import re

from inkling.data.clean.words import is_unspaced

_SITE_WORD = (
    r"(?:home|about(?: us)?|contact(?: us)?|archive|blog|news|products|services|shop|cart|log ?in|sign ?(?:in|up)|"
    r"register|search|menu|help|faqs?|careers|press|privacy(?: policy)?|terms(?: of (?:use|service))?|sitemap|rss)"
)
_EXPRESSIONS = (
    # cookies and scripts
    r"(?:we|this (?:web)?site|our (?:web)?site) uses? cookies\b[^\n]{0,200}",
    r"by (?:continuing to (?:use|browse)|using) (?:this|our) (?:web)?site,? you (?:agree|accept|consent)[^\n]{0,200}",
    r"(?:accept|allow|reject|manage) (?:all )?cookies",
    r"cookie (?:policy|settings|preferences|notice)",
    r"(?:sorry, )?(?:javascript|java script) (?:is|seems to be|must be|needs to be) (?:currently )?(?:disabled|enabled)"
    r"[^\n]{0,160}",
    r"(?:please )?(?:enable|turn on|activate) javascript\b[^\n]{0,160}",
    r"(?:you need|this (?:site|page|app) requires) (?:to enable )?javascript\b[^\n]{0,160}",
    # rights
    r"(?:(?:©|\(c\)|copyright)[^\n]{0,120}?)?all rights reserved[^\n]{0,60}",
    # invitations
    r"subscribe (?:now |today )?to (?:our|the|my) (?:\w+ )?newsletter[^\n]{0,80}",
    r"sign up (?:for|to) (?:our|the|my) (?:\w+ )?newsletter[^\n]{0,80}",
    r"click here (?:to|for)\b[^\n]{1,80}",
    r"share (?:this )?(?:post |article |page )?(?:on|to|via) (?:facebook|twitter|x|linkedin|whatsapp|pinterest|email)"
    r"(?:[ ,|/]+(?:share )?(?:on |to |via )?(?:facebook|twitter|x|linkedin|whatsapp|pinterest|email))*",
    r"(?:follow|like|find) us on (?:facebook|twitter|x|instagram|linkedin|youtube)[^\n]{0,60}",
    # navigation
    r"skip to (?:main |primary )?(?:content|navigation)",
    r"(?:back|return) to (?:the )?top",
    r"(?:previous|prev|older)(?: (?:post|article|page)s?)? ?[|/·•] ?(?:next|newer)(?: (?:post|article|page)s?)?",
    _SITE_WORD + r"(?: ?(?:[|/·•>»›]|[ \t]{2,}) ?" + _SITE_WORD + r"){2,}",
)
_EDGE = r"[ \t|·•»›>*-]*"
_LINE = re.compile(rf"\n{_EDGE}(?:{'|'.join(_EXPRESSIONS)})[.!]?[ \t|·•»›>«*]*(?=\n)", re.IGNORECASE)
"""A line of nothing else, its line feed before it: what begins with a literal is searched quickly."""

_JAVASCRIPT_OR_POLICY = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies", re.IGNORECASE
)
_TERMINAL = (*'.!?"', *"。！？」』”’।॥؟۔։።", '."', ".'", "!'", "?'")
_MIN_LINE_WORDS = 5


def remove_boilerplate(text: str) -> tuple[str, int]:
    """The text without lines of cookie notices, rights, invitations and navigation, and how many there were.

    Text that is nothing else stays as it is.
    """
    framed = f"\n{text}\n"
    if not _LINE.search(framed):
        return text, 0
    rest, count = _LINE.subn("", framed)
    return (rest[1:-1], count) if re.search(r"\w", rest) else (text, 0)


def remove_unfinished_lines(text: str) -> tuple[str, int]:
    """The text without lines that are not sentences, and how many there were (C4, arXiv:1910.10683, section 2.2).

    Kept are lines of five words or more that end with a terminal punctuation mark, without the word JavaScript and
    phrases of policies. Empty lines are kept and not counted; so is text in scripts without spaces or full stops.
    """
    if is_unspaced(text):
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if not line.strip() or _is_finished(line)]
    return "\n".join(kept), len(lines) - len(kept)


def _is_finished(line: str) -> bool:
    line = line.rstrip()
    if not line.endswith(_TERMINAL) or line.endswith("..."):
        return False
    return len(line.split()) >= _MIN_LINE_WORDS and not _JAVASCRIPT_OR_POLICY.search(line)
