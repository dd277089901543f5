"""Personal data in texts: addresses, telephone numbers, cards, accounts and national numbers.

What is learnt can be said again by the tuned model, word for word.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from kilotune.data.example import Example
from kilotune.data.finding import Finding, finding
from kilotune.messages.sentences import phrase

EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-zA-Z]{2,}")
# What has so many digits in a row, with what people write between them, may be a number of a kind.
DIGITS = re.compile(r"(?<![\w.,/-])[+(]?\d(?:[\d ().-]{5,22})[\dXx](?![\w/-]|[.,]\d)", re.ASCII)
# International, American, and Chinese mobile numbers; others are like any number.
PHONE = re.compile(
    r"\+\d[\d ().-]{7,16}\d|(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[ .-]\d{4}|1[3-9]\d{9}"
)
CARD = re.compile(r"[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{1,7}|3[47]\d{2}([ -]?)\d{6}\2\d{5}")
# The United States' and China's, whose last sign is a checksum.
SOCIAL_SECURITY = re.compile(r"(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}")
RESIDENT = re.compile(r"[1-9]\d{5}(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx]")
RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")


def personal_data(examples: Sequence[Example]) -> list[Finding]:
    """Which kinds of personal data the texts hold, and in which rows."""
    rows: dict[str, dict[str, None]] = defaultdict(dict)
    for example in examples:
        for message in example.messages:
            for kind in kinds_in(message.text):
                rows[kind][example.id] = None
    if not rows:
        return []
    named = {row: None for found in rows.values() for row in found}
    kinds = [phrase(kind, rows=len(found)) for kind, found in rows.items()]
    return [finding("personal-data", named, kinds=kinds)]


def kinds_in(text: str) -> Iterator[str]:
    """The kinds of personal data in a text, by the codes of their phrases."""
    if "@" in text and EMAIL.search(text):
        yield "personal-email"
    found = {kind for match in DIGITS.finditer(text) if (kind := _kind(match[0].strip()))}
    yield from sorted(found)
    if any(map(_is_account, IBAN.findall(text))):
        yield "personal-account"


def _kind(number: str) -> str | None:
    return next((kind for kind, is_one in NUMBERS.items() if is_one(number)), None)


def _is_resident(number: str) -> bool:
    if not RESIDENT.fullmatch(number):
        return False
    total = sum(w * int(d) for w, d in zip(RESIDENT_WEIGHTS, number, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()


def _is_card(number: str) -> bool:
    """By its form and the checksum of ISO/IEC 7812 (Luhn)."""
    if not CARD.fullmatch(number):
        return False
    digits = [int(sign) for sign in reversed(number) if sign.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
    return (
        len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[::2]) + sum(doubled)) % 10 == 0
    )


def _is_account(number: str) -> bool:
    """By the checksum of ISO 13616 (IBAN)."""
    plain = number.replace(" ", "")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


# The strictest first: a card's number could be a telephone's.
NUMBERS: dict[str, Callable[[str], bool]] = {
    "personal-national": lambda n: bool(SOCIAL_SECURITY.fullmatch(n)) or _is_resident(n),
    "personal-card": _is_card,
    "personal-phone": lambda n: bool(PHONE.fullmatch(n)),
}
