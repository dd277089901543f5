import pytest

from kilotune.data.scripts import script, spaceless_share


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words", "Latin"),
        ("naïve café", "Latin"),
        ("这部电影很好看", "Han"),
        ("这款手机用了三天，Wi-Fi 很好", "Han"),
        ("これは日本語の文章です", "Japanese"),
        ("한국어 문장입니다", "Hangul"),
        ("Это русский текст", "Cyrillic"),
        ("هذا نص عربي", "Arabic"),
        ("ข้อความภาษาไทย", "Thai"),
        ("यह हिन्दी है", "Devanagari"),
        ("123 + 456 = ?", None),
        ("", None),
        ("half 一半一半 and half", None),
    ],
)
def test_the_script_of_most_letters(text: str, expected: str | None) -> None:
    assert script(text) == expected


def test_few_letters_are_no_script() -> None:
    assert script("yes", least=20) is None
    assert script("好的谢谢你了哦", least=20) == "Han"


def test_the_share_of_writing_without_spaces() -> None:
    assert spaceless_share("all English") == 0
    assert spaceless_share("全是中文，没有别的。") == 1
    assert spaceless_share("中文 ab") == pytest.approx(0.5)
    assert spaceless_share("!?") == 0
