"""Masking: numbers with a check digit against their published examples, and everything that looks like them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkling.data.clean import mask_personal

PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7bq3abcdefgh0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ\n" * 3


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to jane.doe+news@mail.example.co.uk.", "Write to <EMAIL>."),
        ("<jürgen@müller.example>, a_b@c-d.org;", "<<EMAIL>>, <EMAIL>;"),
        ("Call +49 89 1234567 now", "Call <PHONE> now"),
        ("Tel.: +44 (0)20 7946 0958", "Tel.: <PHONE>"),
        ("00 49 is not, 0049 89 123 45 67 is", "00 49 is not, <PHONE> is"),
        ("(555) 234-5678 or 555-234-5678.", "<PHONE> or <PHONE>."),
        ("mobile +4915112345678", "mobile <PHONE>"),
        ("from 203.0.113.77:8080, 10.0.0.5", "from <IP>:8080, <IP>"),
        ("ping 2001:db8:0:0:8a2e::7334, fe80::1ff:fe23:4567:890a", "ping <IP>, <IP>"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004", "card <CARD>, <CARD>"),
        ("amex 378282246310005.", "amex <CARD>."),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC COBADEFF", "IBAN <IBAN> BIC COBADEFF"),
        ("GB82WEST12345698765432", "<IBAN>"),
        ("BE68 5390 0754 7034 EUR", "<IBAN> EUR"),
        ("id AKIAIOSFODNN7EXAMPLE", "id <KEY>"),
        ("token=ghp_" + "a1B2" * 9, "token=<KEY>"),
        ("sk-proj-" + "Ab3_" * 10, "<KEY>"),
        ("xoxb-123456789012-abcdefGHIJ", "<KEY>"),
        ("AIza" + "Sy1_-" * 7, "<KEY>"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N", "Bearer <KEY>"),
        ("a\n" + PEM + "-----END RSA PRIVATE KEY-----\nb", "a\n<KEY>\nb"),
        ("a\n" + PEM + "cut off here", "a\n<KEY>\ncut off here"),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert mask_personal(text)[0] == masked


@pytest.mark.parametrize(
    "text",
    [
        'version 10.2.33.4, v1.12.13.14, Chrome 120.0.60.109, section 1.2.3.4 and 2.3.4.1, sections "8.2.4.44"',
        "2024-01-31 12:34:56, 31.01.2024, 01/31/2024, 1999-2000, 2024-01-01T00:00:00+00:00",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, 9780306406157",
        "d41d8cd98f00b204e9800998ecf8427e da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "550e8400-e29b-41d4-a716-446655440000",
        "3.14159265358979, 0.4111111111111111, +1.23456789, 6.02214076e+23, 1,234,567,890",
        "@property and pkg@1.2.3, name@2x.png, git@github.com:who/what.git, user@localhost",
        "std::vector<int> a::b; dead::beef; Foo::bar(), 00:1b:44:11:3a:b7, 12:34:56:78, a[::1000], a[100::200]",
        "127.0.0.1, 0.0.0.0, 255.255.255.0, ::1, 999.1.1.1, 1.2.3",
        "4111 1111 1111 1112 has a wrong check digit, 1234567812345670 no issuer",
        "DE89 3704 0044 0532 0130 01 is a typing error, AB12 CDEF GHIJ KLMN no country",
        ".sk-folding-cube-animation-long, task-force-of-the-nation, sk-circle-fade-dot-number-seven",
        "1700000000000 ms, 20240131235959, order 12345678, +12345678, +10011010010",
        "1 2 3 4 5 6 7 8 9 10 11 12, 100 200 300 400 500 600, 3 + 123 456 789",
        "the pages 555-234 and 12-3456",
    ],
)
def test_look_alikes_stay(text: str) -> None:
    assert mask_personal(text) == (text, Counter())


def test_everything_is_counted() -> None:
    text = "a@b.org, c@d.org, +49 89 1234567, 203.0.113.77, 4111111111111111, GB82WEST12345698765432"
    assert mask_personal(text)[1] == {"email": 2, "phone": 1, "ip": 1, "card": 1, "iban": 1}


@given(st.integers(10**14, 10**15 - 1).map(lambda number: f"4{number}"))
def test_one_last_digit_of_ten_makes_a_card(stem: str) -> None:
    """Luhn: exactly one check digit fits to any number."""
    masked = [mask_personal(f"pay {stem[:15]}{digit} now")[0] for digit in range(10)]
    assert masked.count("pay <CARD> now") == 1


@given(st.text(alphabet="0123456789", min_size=18, max_size=18), st.integers(0, 98))
def test_an_iban_has_one_pair_of_check_digits(number: str, off: int) -> None:
    """ISO 13616: 98 minus the remainder by 97 of the number with its country (D = 13, E = 14) and 00 at its end."""
    check = 98 - int(number + "131400") % 97
    assert mask_personal(f"DE{check:02d}{number}")[0] == "<IBAN>"
    if 2 <= off != check:
        assert "<IBAN>" not in mask_personal(f"DE{off:02d}{number}")[0]


@given(st.text(alphabet="a1+-. @:()<>/0459DE\n", max_size=60))
def test_masking_again_changes_nothing_more(text: str) -> None:
    once = mask_personal(text)[0]
    assert mask_personal(once)[0] == once
