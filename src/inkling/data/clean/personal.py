"""Personal data and secrets, replaced by their kind: `<EMAIL>`, `<PHONE>`, `<IP>`, `<CARD>`, `<IBAN>`, `<KEY>`.

Found by shape, and by check digits where there are any: what has no shape, such as a name, stays.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}(?![\w-])")
_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:\+\d{1,3}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w+-]|[.,]\d)"
)
_IP4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_CARD = re.compile(r"(?<![\w.-])\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,7}(?![\w-]|\.\d)")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?(?!\w)")
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{1,20000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|(?<!\w)(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_\w{22,255}|glpat-[\w-]{20,}"
    r"|sk-(?:[a-z]{2,8}-)?[A-Za-z0-9_-]{20,200}|xox[abprs]-[A-Za-z0-9-]{10,200}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}"
    r"|eyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,2000})(?!\w)"
)


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback) and (address.version == 4 or text.count(":") > 2)


def _is_card(text: str) -> bool:
    """Luhn's check digit."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and digits[0] in (2, 3, 4, 5, 6) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """ISO 7064, modulo 97."""
    compact = text.replace(" ", "")
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


_KINDS: list[tuple[str, str, re.Pattern[str], Callable[[str], bool]]] = [
    ("KEY", "", _KEY, lambda text: True),
    ("EMAIL", "@", _EMAIL, lambda text: True),
    ("IP", ".", _IP4, _is_ip),
    ("IP", ":", _IP6, _is_ip),
    ("IBAN", "", _IBAN, _is_iban),
    ("CARD", "", _CARD, _is_card),
    ("PHONE", "", _PHONE, lambda text: 7 <= sum(map(str.isdigit, text)) <= 15),
]


def mask(text: str, counts: Counter[str]) -> str:
    """The text with personal data replaced; `counts` has `masked_email` and so on."""
    for kind, needs, pattern, is_one in _KINDS:
        if needs and needs not in text:
            continue
        count = 0

        def replace(match: re.Match[str], kind: str = kind, is_one: Callable[[str], bool] = is_one) -> str:
            nonlocal count
            if not is_one(match.group()):
                return match.group()
            count += 1
            return f"<{kind}>"

        text = pattern.sub(replace, text)
        if count:
            counts[f"masked_{kind.lower()}"] += count
    return text
