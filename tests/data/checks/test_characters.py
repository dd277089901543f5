import pytest

from kilotune.data.checks.characters import control_characters, mojibake
from tests.support.made import classified

GOOD = [
    "Plain ASCII,\twith a tab\nand two lines.\r\n",
    "Curly “quotes” – dashes… and naïve cafés, à la carte; 20 °C, £5, ½, ×, São Paulo, Zürich",
    "这家店的味道很好，价格也便宜。",
    "これはテストです。",
    "Привет, как дела? Всё хорошо.",
    "مرحبا بالعالم",
    "👩‍👩‍👧 a family, ❤️ a heart",
    "联通",
    "ภาษา\u200bไทย",
]


@pytest.mark.parametrize("text", GOOD)
def test_good_texts_of_many_languages_are_left_alone(text: str) -> None:
    rows = classified((text, "a"))
    assert mojibake(rows) == []
    assert control_characters(rows) == []


@pytest.mark.parametrize(
    "text",
    [
        "l’été à la plage".encode().decode("cp1252"),
        "a “quoted” word".encode().decode("latin-1"),
        "今天的天气真不错".encode().decode("latin-1"),
        "今天的天气真不错啊".encode().decode("gbk", errors="ignore"),
        "lost \ufffd byte",
        "锟斤拷锟斤拷",
    ],
)
def test_texts_in_the_wrong_encoding_are_found(text: str) -> None:
    (finding,) = mojibake(classified(("fine", "a"), (text, "a")))
    assert (finding.code, finding.rows) == ("mojibake", ("data:3",))


@pytest.mark.parametrize(
    "sign", ["\x00", "\x08", "\x1b", "\x7f", "\ufeff", "\u2028", "\u202e", "\u200b"]
)
def test_signs_that_nobody_sees_are_found(sign: str) -> None:
    (finding,) = control_characters(classified(("fine", "a"), (f"a{sign}b", "a")))
    assert (finding.code, finding.rows) == ("control-characters", ("data:3",))
