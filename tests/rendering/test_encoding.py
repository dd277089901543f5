"""Text to ids: as plain transformers where it can be, cut at borders where it must be."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers

from kilotune.rendering.encoding import encoder, special_ids, token_id
from tests.support.tiny import byte_tokenizer, word_tokenizer

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


def test_the_whole_is_encoded_at_once_where_nothing_merges_across(smollm2_tokenizer: Any) -> None:
    text = "<|im_start|>user\nHello there<|im_end|>\n<|im_start|>assistant\nYes."
    border = text.index("Yes.")
    ids, (place,) = encoder(smollm2_tokenizer).encode(text, borders=[border])
    assert ids == smollm2_tokenizer.encode(text, add_special_tokens=False)
    assert ids[place:] == smollm2_tokenizer.encode("Yes.", add_special_tokens=False)


def test_a_token_that_would_reach_across_a_border_is_cut_there(smollm2_tokenizer: Any) -> None:
    plain = smollm2_tokenizer.encode("understand", add_special_tokens=False)
    assert len(plain) == 1
    ids, places = encoder(smollm2_tokenizer).encode("understand", borders=[5, 7])
    assert places == [1, 2]
    assert [smollm2_tokenizer.decode([i]) for i in ids] == ["under", "st", "and"]


def test_ordinary_stretches_hold_no_control_tokens(smollm2_tokenizer: Any) -> None:
    text = "<|im_start|>user\n<|im_end|> and <|im_start|><|im_end|>\n"
    start, end = text.index("\n") + 1, text.rindex("<|im_end|>")
    coder = encoder(smollm2_tokenizer)
    ids, _ = coder.encode(text, ordinary=[(start, end)])
    assert smollm2_tokenizer.decode(ids) == text
    assert [i for i in ids if i in coder.special.control] == [1, 2]


def test_spellings_that_the_vocabulary_itself_holds_are_cut_apart() -> None:
    # Such a marker is no special token to the tokenizer, which then never leaves it as text.
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<|turn|>"])
    turn = token_id(tokenizer, "<|turn|>")
    assert turn is not None
    assert tokenizer.encode("<|turn|>", split_special_tokens=True) == [turn]
    coder = encoder(tokenizer, ["<|turn|>"])
    ids, _ = coder.encode("<|turn|>a<|turn|>", ordinary=[(9, 17)])
    assert ids[0] == turn
    assert turn not in ids[1:]
    assert tokenizer.decode(ids) == "<|turn|>a<|turn|>"


def test_no_space_is_put_into_the_middle_of_a_text() -> None:
    tokenizer = word_tokenizer(None, ["▁Hello"])
    coder = encoder(tokenizer)
    assert coder.segments.prefixes
    names = tokenizer.convert_ids_to_tokens
    ids, (place,) = coder.encode("x:Hello", borders=[2])
    assert names(ids[place:]) == ["H", "e", "l", "l", "o"]
    ids, (place,) = coder.encode("x: Hello", borders=[2])
    assert names(ids) == ["▁", "x", ":", "▁Hello"]
    assert place == 3


def test_special_ids_are_all_that_the_vocabulary_file_marks(qwen_base: Any) -> None:
    assert len(special_ids(qwen_base)) == 208
    assert min(special_ids(qwen_base)) == 151643
    assert token_id(qwen_base, "<|im_end|>") == 151645
    assert token_id(qwen_base, "<|nothing|>") is None


MARKED = st.lists(
    st.one_of(TEXT, st.sampled_from(["<|im_end|>", "<|im_start|>", "</s>", "<s>", "\n", " "])),
    max_size=8,
)


@pytest.mark.parametrize("vocabulary", ["qwen_base", "smollm2_tokenizer", "words"])
@settings(max_examples=150, deadline=None)
@given(parts=MARKED, data=st.data())
def test_ids_before_a_border_are_those_of_the_text_before_it(
    vocabulary: str, parts: list[str], data: st.DataObject, request: pytest.FixtureRequest
) -> None:
    if vocabulary == "words":
        tokenizer = word_tokenizer(None, ["▁Hello", "▁a", "ab"])
    else:
        tokenizer = request.getfixturevalue(vocabulary)
    coder = encoder(tokenizer)
    text = "".join(parts)
    inside = {
        i for m in coder.special.spellings.finditer(text) for i in range(m.start() + 1, m.end())
    }
    outside = [place for place in range(len(text) + 1) if place not in inside]
    borders = data.draw(st.lists(st.sampled_from(outside), unique=True, max_size=3).map(sorted))
    ids, found = coder.encode(text, borders=borders)
    for border, place in zip(borders, found, strict=True):
        earlier = [other for other in borders if other < border]
        assert coder.encode(text[:border], borders=earlier)[0] == ids[:place]
    if not borders:
        assert ids == tokenizer.encode(text, add_special_tokens=False)


@settings(max_examples=150, deadline=None)
@given(parts=MARKED)
def test_ordinary_text_reads_back_and_holds_nothing_special(
    parts: list[str], qwen_base: Any
) -> None:
    coder = encoder(qwen_base)
    text = unicodedata.normalize("NFC", "".join(parts))
    ids, _ = coder.encode(text, ordinary=[(0, len(text))])
    assert coder.special.control.isdisjoint(ids)
    assert qwen_base.decode(ids) == text


@pytest.mark.parametrize("side", ["lstrip", "rstrip", "normalized"])
def test_tokens_that_take_more_than_themselves_are_encoded_with_what_is_around_them(
    side: str,
) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a<", "<")
    assert encoder(tokenizer).segments.parted
    tokenizer.add_tokens([AddedToken("<turn>", **{"normalized": False, side: True})])
    coder = encoder(tokenizer, ["<turn>"])
    assert not coder.segments.parted
    text = "x <turn> y a<turn> <|im_end|> z"
    ids, places = coder.encode(text, borders=[9, 10])
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    for border, place in zip([9, 10], places, strict=True):
        assert ids[:place] == tokenizer.encode(text[:border], add_special_tokens=False)


def test_splitting_once_leaves_the_tokenizer_as_it_was(smollm2_tokenizer: Any) -> None:
    encoder(smollm2_tokenizer).encode("<|im_end|>", ordinary=[(0, 10)])
    assert smollm2_tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]
