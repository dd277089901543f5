import codecs

import pytest

from kilotune.data.files.encodings import decode
from kilotune.errors import KilotuneError

CHINESE = "这家店的菜很好吃，服务员也很热情，下次还会来。但是等了很长时间，价格有点贵。"
TEXT = f"text,label\n{CHINESE},good\n"


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
    ],
)
def test_unicode_with_or_without_a_mark_is_read_without_a_word(raw: bytes) -> None:
    assert decode(raw, "a.csv") == (TEXT, [])


@pytest.mark.parametrize("encoding", ["gb2312", "gbk", "gb18030"])
def test_chinese_in_gb18030_is_read_and_said(encoding: str) -> None:
    text, (finding,) = decode(TEXT.encode(encoding), "a.csv")
    assert text == TEXT
    assert (finding.code, finding.severity, finding.rows) == ("encoding-gb18030", "note", ())


def test_emoji_and_rare_characters_of_gb18030_do_not_hide_the_rest() -> None:
    raw = (TEXT + "😀镕").encode("gb18030")
    assert decode(raw, "a.csv")[0] == TEXT + "😀镕"
    short = "text,label\na plain row,good\n很好𠀀的电影,good\n"
    assert decode(short.encode("gb18030"), "a.csv")[0] == short


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Le café était fermé, dommage.", "latin-1"),
        ("Größe", "latin-1"),
        ("ATENÇÃO", "latin-1"),
        ("Es war schön, aber für mich zu groß. “Nein” – sagte er.", "cp1252"),
        ("Это был очень хороший фильм", "cp1251"),
        ("Η ταινία ήταν καλή", "cp1253"),
        ("이 영화는 정말 재미있었습니다", "euc-kr"),
        ("この映画はとても面白かったです", "euc-jp"),
        ("この映画はとても面白かったです", "shift-jis"),
        ("這部電影非常好看", "big5"),
    ],
)
def test_other_encodings_are_refused_with_the_line(text: str, encoding: str) -> None:
    with pytest.raises(KilotuneError) as caught:
        decode(f"text,label\nplain,x\n{text},x\n".encode(encoding), "a.csv")
    assert caught.value.what == "not UTF-8 text"
    assert caught.value.where == "a.csv:3"
    assert caught.value.fix == "Save the file as UTF-8"


def test_utf_16_without_its_mark_is_refused() -> None:
    with pytest.raises(KilotuneError, match="UTF-16 without its byte-order mark"):
        decode("text,label\nplain,x\n".encode("utf-16-le"), "a.csv")


def test_broken_utf_16_names_itself() -> None:
    with pytest.raises(KilotuneError, match="not UTF-16 text"):
        decode("abc".encode("utf-16") + b"\x00\xd8", "a.csv")
