"""Words of users in Markdown, read back by a parser."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from kilotune.exports.markdown import block, code, plain

NASTY = [
    "<script>alert(1)</script>", "a|b", "a\\|b", "a\\", "line\nbreak", "`code`", "``", "# head",
    "- item", "+ item", "> quote", "1. one", "2) two", "---", "===", "[link](http://x)", "![i](x)",
    "*bold* _it_", "~~no~~", "&lt;b&gt;", "<|im_start|>", "http://x.test/y", ":---:", "$x$",
    "{{ name }}", "| a | b |\n|---|---|", "&#124;", "<!-- no -->",
]  # fmt: skip
PARSER = MarkdownIt("gfm-like", {"linkify": False, "html": True})


def words(tokens: list[Token]) -> str:
    return "".join(
        child.content for token in tokens for child in token.children or [] if child.content
    )


def kinds(tokens: list[Token]) -> set[str]:
    return {child.type for token in tokens for child in token.children or []}


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", NASTY)
def test_a_paragraph_of_it_is_the_text_itself(text: str) -> None:
    tokens = PARSER.parse(plain(text))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert words(tokens) == one_line(text)
    assert kinds(tokens) <= {"text", "text_special"}


@given(st.text(st.sampled_from("ab1 \n\t|\\`*_[]()<>#+-=.!&;~$:/{}\"'"), max_size=12))
def test_any_text_stays_itself_in_a_cell_and_keeps_the_table(text: str) -> None:
    table = f"| a | b |\n|---|---|\n| {plain(text)} | 2 |\n"
    tokens = PARSER.parse(table)
    assert [token.type for token in tokens].count("td_open") == 2
    cells = [token for token in tokens if token.type == "inline"][2:]
    assert words(cells[:1]) == one_line(text)
    assert words(cells[1:]) == "2"
    assert kinds(cells) <= {"text", "text_special"}


@given(st.text(st.sampled_from("a `\n<"), min_size=1, max_size=8))
def test_any_text_stays_itself_as_code(text: str) -> None:
    if one_line(text):
        (inline,) = (t for t in PARSER.parse(f"x {code(text)}") if t.type == "inline")
        assert [c.content for c in inline.children or [] if c.type == "code_inline"] == [
            one_line(text)
        ]


def test_backticks_do_not_end_a_block() -> None:
    text = "a: 'b\n\n  ```\n\n  <b>'"
    (fence,) = PARSER.parse(block(text, "yaml"))
    assert (fence.type, fence.info, fence.content) == ("fence", "yaml", f"{text}\n")
