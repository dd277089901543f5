"""Text to token ids: control tokens where the template put them, ordinary text elsewhere."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Tokenizer = Any  # a transformers fast tokenizer, kept untyped so that this needs no torch

Range = tuple[int, int]  # of characters: from the first, to before the second

# Something harmless to stand before a stretch that continues a text; one that does not merge.
ANCHORS = ("\n", ".", "a", "0")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer and its control tokens: their ids, and the pattern of their spellings.

    `prefixes` says that the tokenizer puts a space before whatever it is given, as those made
    from SentencePiece do; a stretch that continues a text must not get one.
    """

    tokenizer: Tokenizer
    control: frozenset[int]
    spellings: re.Pattern[str]
    prefixes: bool

    def encode(
        self, text: str, ordinary: Sequence[Range] = (), borders: Sequence[int] = ()
    ) -> tuple[list[int], list[int]]:
        """The ids of `text`, and for each border how many of them stand before it.

        The whole is encoded at once, which gives what plain transformers gives, except that
        stretches in `ordinary` never become control tokens, and that the ids before a border
        (an ascending position in `text`) are those of the text before it by itself: where a
        token would reach across, both sides are encoded for themselves.
        """
        return self._encode(text, 0, len(text), ordinary, borders)

    def _encode(
        self, text: str, start: int, end: int, ordinary: Sequence[Range], borders: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        whole = self._stretch(text, start, end, ordinary)
        marks = self._marks(text, start, end, ordinary)
        places: list[int] = []
        for number, border in enumerate(borders):
            known, at = self._before(whole, marks, start, border)
            left = whole[:known] + self._stretch(text, at, border, ordinary)
            if whole[: len(left)] != left:
                left, places = self._encode(text, start, border, ordinary, borders[:number])
                right, more = self._encode(text, border, end, ordinary, borders[number + 1 :])
                within = len(left)
                return left + right, [*places, within, *(within + place for place in more)]
            places.append(len(left))
        return whole, places

    def _marks(self, text: str, start: int, end: int, ordinary: Sequence[Range]) -> list[int]:
        """Where the control tokens between `start` and `end` begin."""
        found = (match.start() for match in self.spellings.finditer(text, start, end))
        return [at for at in found if not any(first <= at < last for first, last in ordinary)]

    def _before(
        self, ids: Sequence[int], marks: Sequence[int], start: int, border: int
    ) -> tuple[int, int]:
        """The last control token before `border`: how many ids stand before it, where it begins.

        Nothing merges with a control token, so that only what is behind it need be looked at.
        """
        before = [at for at in marks if at < border]
        control = [place for place, token in enumerate(ids) if token in self.control]
        if not before or len(control) != len(marks):
            return 0, start
        return control[len(before) - 1], before[-1]

    def spells_control(self, text: str) -> bool:
        """Whether `text` holds the spelling of a control token."""
        return self.spellings.search(text) is not None

    def _stretch(self, text: str, start: int, end: int, ordinary: Sequence[Range]) -> list[int]:
        ids: list[int] = []
        at = start
        for first, last in ordinary:
            if last <= at or first >= end:
                continue
            if first > at:
                ids += self._ids(text[at:first], at > 0)
                at = first
            ids += self._ordinary_ids(text[at : min(last, end)], at > 0)
            at = min(last, end)
        return ids + self._ids(text[at:end], at > 0)

    def _ordinary_ids(self, text: str, continues: bool) -> list[int]:
        ids = self._ids(text, continues, split_special_tokens=True)
        if self.control.isdisjoint(ids):
            return ids
        # The vocabulary itself holds the spelling: cut it after its first character.
        cuts = [match.start() + 1 for match in self.spellings.finditer(text)]
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = []
        for part in parts:
            ids += self._ids(part, continues or bool(ids), split_special_tokens=True)
        return ids

    def _ids(self, text: str, continues: bool, *, split_special_tokens: bool = False) -> list[int]:
        def encode(stretch: str) -> list[int]:
            ids: list[int] = self.tokenizer.encode(
                stretch, add_special_tokens=False, split_special_tokens=split_special_tokens
            )
            return ids

        if not text:
            return []
        if continues and self.prefixes:
            for anchor in ANCHORS:
                before, both = encode(anchor), encode(anchor + text)
                if both[: len(before)] == before:
                    return both[len(before) :]
        return encode(text)


def encoder(tokenizer: Tokenizer, more_control: Sequence[str] = ()) -> Encoder:
    """The encoder of `tokenizer`; `more_control` are tokens it does not mark as special itself."""
    control = special_ids(tokenizer) | {
        index for token in more_control if (index := token_id(tokenizer, token)) is not None
    }
    names = sorted(filter(None, tokenizer.convert_ids_to_tokens(sorted(control))), key=len)
    pattern = "|".join(map(re.escape, reversed(names))) or r"(?!)"
    (first, *_) = tokenizer.convert_ids_to_tokens(
        tokenizer.encode("x", add_special_tokens=False)
    ) or [""]
    return Encoder(tokenizer, control, re.compile(pattern), first[:1] in ("▁", "Ġ"))


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of every special token, those that only the vocabulary file marks included."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def token_id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of `token` where it is one token of the vocabulary, else None."""
    index = tokenizer.convert_tokens_to_ids(token)
    known = index is not None and tokenizer.convert_ids_to_tokens(index) == token
    return int(index) if known else None
