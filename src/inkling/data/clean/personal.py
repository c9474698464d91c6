"""Masking of personal data and keys: what has a checkable form. Names and addresses have none and are not found."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

# ---------------------------------------------------------------- keys

_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:(?!-----BEGIN )[\s\S])*?-----END (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----|(?:\s*[A-Za-z0-9+/=]{40,})*)"
)
_TOKEN = re.compile(
    r"(?<![\w-])(?:"
    r"A[KS]IA[0-9A-Z]{16}(?!\w)"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|glpat-[A-Za-z0-9_-]{20,}"
    r"|sk-[A-Za-z0-9_-]{20,}|sk_live_[A-Za-z0-9]{20,}"  # OpenAI, Anthropic; Stripe
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}"  # Slack
    r"|AIza[0-9A-Za-z_-]{35}"  # Google
    r"|hf_[A-Za-z0-9]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"  # JSON Web Token, RFC 7519
    r")"
)
_KEY_PREFIXES = ("AKIA", "ASIA", "gh", "glpat-", "sk-", "sk_", "xox", "AIza", "hf_", "eyJ")

# ---------------------------------------------------------------- the rest

_EMAIL = re.compile(
    r"(?<![\w.%+-])(?!git@)[\w%+-][\w.%+-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+"
    r"(?!(?:png|jpe?g|gif|svg|webp|js|css)\b)[A-Za-z]{2,24}(?![\w-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}(?![a-z0-9])")
_CARD = re.compile(
    r"(?<![\w.,-])"
    r"(?:[2-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}|3[47]\d{2}([ -]?)\d{6}\2\d{5}|3[0689]\d{2}([ -]?)\d{6}\3\d{4})"
    r"(?![\w-]|[.,]\d)"
)
_IPV4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}(?![\w:]|\.\d)")
_VERSION = re.compile(
    r"(?:\bv|\b(?:ver|version|release|build|section|chapter|chrome|firefox|python|§)s?)[ .:=/]*$", re.I
)
_PHONE = re.compile(
    r"(?<![\w+.,/-])(?:"
    r"(?:\+|(?<!\d[ -])00)[1-9]\d{0,2}[ -]?(?:\(0?\d{1,4}\)[ -]?)?\d(?:[ -]?\d){5,13}"  # ITU-T E.164
    r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}"  # North American numbering plan
    r")(?![\w-]|[.,]\d)"
)

_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ CY DO GT HU LB PL",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT",
    }.items()
    for country in countries.split()
}
"""By country, from the registry of ISO 13616."""


def mask_personal(text: str) -> tuple[str, Counter[str]]:
    """The text with personal data replaced, and how many of each kind: key, email, iban, card, ip, phone.

    Emails, phone numbers in international or North American form, IP addresses that are not a machine's own, payment
    cards (ISO/IEC 7812, Luhn's check digit), IBANs (ISO 13616, remainder 97), keys and tokens with well-known prefixes,
    private keys in PEM (RFC 7468). Version numbers, dates, ISBNs, hashes and decimal numbers are left as they are.
    """
    counts: Counter[str] = Counter()

    def mask(kind: str, pattern: re.Pattern[str], holds: Callable[[re.Match[str]], int]) -> None:
        nonlocal text

        def replace(match: re.Match[str]) -> str:
            num_characters = holds(match)
            if not num_characters:
                return match.group()
            counts[kind] += 1
            return f"<{kind.upper()}>{match.group()[num_characters:]}"

        text = pattern.sub(replace, text)

    if "PRIVATE KEY" in text:
        mask("key", _PRIVATE_KEY, _whole)
    if any(prefix in text for prefix in _KEY_PREFIXES):
        mask("key", _TOKEN, _key)
    if "@" in text:
        mask("email", _EMAIL, _whole)
    if _has_digit(text):
        mask("iban", _IBAN, _iban)
        mask("card", _CARD, _card)
        if text.count(".") >= 3:
            mask("ip", _IPV4, _ipv4)
        if text.count(":") >= 2:
            mask("ip", _IPV6, _ipv6)
        mask("phone", _PHONE, _phone)
    return text, counts


def _has_digit(text: str) -> bool:
    return re.search(r"[0-9]{2}", text) is not None or "::" in text


# How many characters at the beginning of a match are what it looks like; 0 when it is something else.


def _whole(match: re.Match[str]) -> int:
    return len(match.group())


def _key(match: re.Match[str]) -> int:
    """A key is not made of words, as names of styles (`sk-folding-cube`) are."""
    key = match.group()
    if key.startswith("sk-") and not (re.search(r"\d", key) and re.search(r"[A-Z]|\w{20}", key)):
        return 0
    return len(key)


def _iban(match: re.Match[str]) -> int:
    """As many characters as the country's numbers have; letters count 10 to 35 in the remainder."""
    written = match.group()
    wanted = _IBAN_LENGTHS.get(written[:2], 0)
    places = [place for place, character in enumerate(written, start=1) if character != " "]
    if not wanted or len(places) < wanted:
        return 0
    end = places[wanted - 1]
    if written[end : end + 1].isalnum():
        return 0
    number = written[:end].replace(" ", "")
    return end if int("".join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1 else 0


def _card(match: re.Match[str]) -> int:
    digits = [int(character) for character in match.group() if character.isdigit()]
    if digits[0] == 2 and not 22 <= 10 * digits[0] + digits[1] <= 27:
        return 0
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(match.group()) if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 else 0


def _ipv4(match: re.Match[str]) -> int:
    """Three numbers below ten are a version or a section, and so is what a word before says is one."""
    written = match.group()
    is_numbering = sum(len(number) == 1 for number in written.split(".")) >= 3 and not written.startswith("10.")
    if is_numbering or _VERSION.search(match.string[max(match.start() - 12, 0) : match.start()]):
        return 0
    try:
        return _if_somebodys(ipaddress.IPv4Address(written), written)
    except ValueError:
        return 0


def _ipv6(match: re.Match[str]) -> int:
    """Three groups or a link's own address; namespaces (`a::b`) and slices (`[::100]`) of programs are neither."""
    written = match.group()
    groups = [group for group in written.split(":") if group]
    if len(groups) < 3 and not written.lower().startswith("fe80:"):
        return 0
    if not any(len(group) >= 3 and re.search(r"\d", group) for group in groups):
        return 0
    try:
        return _if_somebodys(ipaddress.IPv6Address(written), written)
    except ValueError:
        return 0


def _if_somebodys(address: ipaddress.IPv4Address | ipaddress.IPv6Address, written: str) -> int:
    nobodys = address.is_loopback or address.is_unspecified or address.is_multicast or written.startswith("255.")
    return 0 if nobodys else len(written)


def _phone(match: re.Match[str]) -> int:
    """International numbers have 8 to 15 digits; without any gap, fewer than 10 may be any number, zeros and ones
    a binary one."""
    written = match.group()
    num_digits = sum(map(str.isdigit, written)) - 2 * written.startswith("00")
    if written[0] not in "+0":
        return len(written)
    if set(written) <= set("+01"):
        return 0
    return len(written) if (10 if written[1:].isdigit() else 8) <= num_digits <= 15 else 0
