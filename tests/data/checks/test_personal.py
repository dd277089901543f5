"""Personal data in texts, and numbers that are none."""

import pytest

from kilotune.data.checks.personal import kinds_in, personal_data
from kilotune.data.example import Example, Message, Origin

# The numbers are those that standards and providers publish as examples.


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jo.doe+x@mail.example.org, please", "personal-email"),
        ("邮箱jo@example.cn。", "personal-email"),
        ("call +44 20 7946 0958 at once", "personal-phone"),
        ("call (555) 010-4477 or 555-010-4477", "personal-phone"),
        ("手机13800138000联系", "personal-phone"),
        ("card 4111 1111 1111 1111, thanks", "personal-card"),
        ("card 378282246310005.", "personal-card"),
        ("SSN: 078-05-1120", "personal-national"),
        ("身份证 11010519491231002X", "personal-national"),
        ("IBAN GB82 WEST 1234 5698 7654 32", "personal-account"),
    ],
)
def test_each_kind_is_found(text: str, kind: str) -> None:
    assert list(kinds_in(text)) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "in 2023 and 1984-1990, 12,345,678 people",
        "order 4111 1111 1111 1112 of 2024-05-01 10:30",
        "version 1.2.3.4.5.6, pages 100-200 200-300",
        "123-45-67890 and 000-12-3456",
        "110105194912310021",
        "@user said hello @ noon",
        "GB82 WEST 1234 5698 7654 33",
        "call 5550104477 or 12345678",
        "3.14159265358979 or 1/13800138000",
    ],
)
def test_other_numbers_are_none(text: str) -> None:
    assert list(kinds_in(text)) == []


def test_the_rows_are_counted_by_kind() -> None:
    texts = ("a@b.org and +44 20 7946 0958", "nothing", "c@d.org")
    examples = [
        Example(f"data:{n}", (Message("user", text),), Origin("a", n))
        for n, text in enumerate(texts, 1)
    ]
    (found,) = personal_data(examples)
    assert (found.rows, found.severity) == (("data:1", "data:3"), "note")
    assert "e-mail addresses in 2, telephone numbers in 1" in found.message
    assert "a@b.org" not in found.message
