"""Text to token ids: control tokens where the template put them, ordinary text elsewhere."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

Tokenizer = Any  # a transformers fast tokenizer, kept untyped so that this needs no torch

Range = tuple[int, int]  # of characters: from the first, to before the second

# Something harmless to stand before a stretch that continues a text; one that does not merge.
ANCHORS = ("\n", ".", "a", "0")

# Stretches remembered, and their tokens: those of a long conversation, which is encoded again
# without its answer, or with fewer turns.
KEPT, KEPT_TOKENS = 400, 1_000_000


@dataclass(frozen=True, slots=True)
class Encoder:
    """A tokenizer, its control tokens, and the patterns of their spellings.

    Tokens in `control` come from the template alone, never from what a message says. Those in
    `own` are the model's own words, as `<think>`: they come from answers, never from what others
    say. `prefixes` says that the tokenizer puts a space before whatever it is given, as those made
    from SentencePiece do; a stretch that continues a text must not get one. `parted` are the ids
    of the control tokens by their spelling where what lies between them can be encoded by itself,
    and then it is encoded once and remembered.
    """

    tokenizer: Tokenizer
    control: frozenset[int]
    own: frozenset[int]
    spellings: re.Pattern[str]
    own_spellings: re.Pattern[str]
    prefixes: bool
    parted: dict[str, int]
    known: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)
    spelt: dict[tuple[str, bool], list[int]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def encode(
        self, text: str, ordinary: Sequence[Range] = (), borders: Sequence[int] = ()
    ) -> tuple[list[int], list[int]]:
        """The ids of `text`, and for each border how many of them stand before it.

        The whole is encoded at once, which gives what plain transformers gives, except that
        stretches in `ordinary` (ascending) never become control tokens or the model's own, and
        that the ids before a border (an ascending position in `text`) are those of the text before
        it by itself: where a token would reach across, both sides are encoded for themselves.

        Nothing merges with a control token, so that a border is compared, and cut if need be, only
        between the control tokens around it: the time is linear in the text.
        """
        whole = self._stretch(text, 0, len(text), ordinary)
        marks = self._marks(text, ordinary) if borders else []
        at = [place for place, token in enumerate(whole) if token in self.control] if marks else []
        if len(at) != len(marks):  # unknown characters count as control tokens too
            marks, at = [], []
        starts = [start for start, _ in marks]
        ids: list[int] = []
        places: list[int] = []
        done = 0
        for after, near in groupby(borders, lambda border: bisect_left(starts, border)):
            first = at[after - 1] if after else 0
            start = starts[after - 1] if after else 0
            last, end = len(whole), len(text)
            if after < len(marks):  # with the next one, which may take the space before it
                last, end = at[after] + 1, marks[after][1]
            ids += whole[done:first]
            cut, within = self._cut(text, start, end, ordinary, whole[first:last], list(near))
            places += [len(ids) + place for place in within]
            done = last - (after < len(marks))
            ids += cut[: len(cut) - (after < len(marks))]
        return ids + whole[done:], places

    def spells(self, text: str, *, answer: bool) -> bool:
        """Whether a message spells a token that must not come from it."""
        forbidden = self.spellings.search(text)
        return forbidden is not None or (not answer and self.own_spellings.search(text) is not None)

    def ordinary(self, text: str, start: int, end: int, *, answer: bool) -> Iterator[Range]:
        """The stretches of the message at `text[start:end]` that must not become such tokens."""
        if answer:
            for match in self.own_spellings.finditer(text, start, end):
                yield start, match.start()
                start = match.end()
        yield start, end

    def _cut(
        self,
        text: str,
        start: int,
        end: int,
        ordinary: Sequence[Range],
        whole: list[int],
        borders: Sequence[int],
    ) -> tuple[list[int], list[int]]:
        """`whole`, the ids of `text[start:end]`, with no token that reaches across a border."""
        places: list[int] = []
        for number, border in enumerate(borders):
            left = self._stretch(text, start, border, ordinary)
            if whole[: len(left)] != left:
                left, places = self._cut(text, start, border, ordinary, left, borders[:number])
                right, more = self._cut(
                    text,
                    border,
                    end,
                    ordinary,
                    self._stretch(text, border, end, ordinary),
                    borders[number + 1 :],
                )
                within = len(left)
                return left + right, [*places, within, *(within + place for place in more)]
            places.append(len(left))
        return whole, places

    def _marks(self, text: str, ordinary: Sequence[Range]) -> list[Range]:
        """Where the control tokens stand: their spellings outside of ordinary stretches."""
        edges = [0, *(edge for stretch in ordinary for edge in stretch), len(text)]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        return [match.span() for gap in gaps for match in self.spellings.finditer(text, *gap)]

    def _stretch(self, text: str, start: int, end: int, ordinary: Sequence[Range]) -> list[int]:
        ids: list[int] = []
        at = start
        for first, last in ordinary[bisect_right(ordinary, at, key=lambda stretch: stretch[1]) :]:
            if first >= end:
                break
            if first > at:
                ids += self._ids(text[at:first], at > 0)
                at = first
            ids += self._ordinary_ids(text[at : min(last, end)], at > 0)
            at = min(last, end)
        return ids + self._ids(text[at:end], at > 0)

    def _ordinary_ids(self, text: str, continues: bool) -> list[int]:
        """The ids of `text` as characters; remembered."""
        key = (text, continues)
        if key not in self.spelt:
            _forget(self.spelt)
            self.spelt[key] = self._spelt_out(text, continues)
        return self.spelt[key]

    def _spelt_out(self, text: str, continues: bool) -> list[int]:
        ids = self._encoded(text, continues, split_special_tokens=True)
        forbidden = self.control | self.own
        if forbidden.isdisjoint(ids):
            return ids
        # The vocabulary itself holds the spelling: cut it after its first character.
        patterns = (self.spellings, self.own_spellings)
        cuts = sorted({m.start() + 1 for pattern in patterns for m in pattern.finditer(text)})
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = self._joined(parts, continues)
        # Spelt otherwise than it is written, in capitals say: nothing is left but single signs.
        return ids if forbidden.isdisjoint(ids) else self._joined(text, continues)

    def _joined(self, parts: Sequence[str], continues: bool) -> list[int]:
        ids: list[int] = []
        for part in parts:
            ids += self._encoded(part, continues or bool(ids), split_special_tokens=True)
        return ids

    def _ids(self, text: str, continues: bool) -> list[int]:
        if not text:
            return []
        if not self.parted:
            return self._encoded(text, continues, split_special_tokens=False)
        pieces, between = [], []
        at = 0
        for match in self.spellings.finditer(text):
            pieces.append(text[at : match.start()])
            between.append(self.parted[match.group()])
            at = match.end()
        known = self._remembered([*pieces, text[at:]])
        ids: list[int] = []
        for piece, control in zip(pieces, between, strict=True):
            ids += known[piece]
            ids.append(control)
        return ids + known[text[at:]]

    def _remembered(self, pieces: Sequence[str]) -> dict[str, list[int]]:
        """The ids of each of `pieces`, which hold no control tokens."""
        _forget(self.known)
        missing = [piece for piece in dict.fromkeys(pieces) if piece not in self.known]
        if missing:
            core = self.tokenizer.backend_tokenizer  # does not count where each token lies
            core.no_truncation()
            core.no_padding()
            core.encode_special_tokens = False
            found = core.encode_batch_fast(missing, add_special_tokens=False)
            self.known.update((p, e.ids) for p, e in zip(missing, found, strict=True))
        return self.known

    def _encoded(self, text: str, continues: bool, *, split_special_tokens: bool) -> list[int]:
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


def encoder(
    tokenizer: Tokenizer, more_control: Collection[str] = (), own: Collection[str] = ()
) -> Encoder:
    """The encoder of `tokenizer`.

    `more_control` are control tokens, and `own` the model's own words, that the tokenizer does not
    mark as special itself.
    """
    control = special_ids(tokenizer) | _ids_of(tokenizer, more_control)
    names = tokenizer.convert_ids_to_tokens(sorted(control))
    (first, *_) = tokenizer.convert_ids_to_tokens(
        tokenizer.encode("x", add_special_tokens=False)
    ) or [""]
    prefixes = first[:1] in ("▁", "Ġ")
    return Encoder(
        tokenizer,
        control,
        _ids_of(tokenizer, own) - control,
        spelling(names),
        spelling(own),
        prefixes,
        {} if prefixes else _parted(tokenizer, control),
    )


def spelling(names: Collection[str | None]) -> re.Pattern[str]:
    """What finds each of `names` in a text, the longest where several begin."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def special_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of every special token, those that only the vocabulary file marks included."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def token_id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of `token` where it is one token of the vocabulary, else None."""
    index = tokenizer.convert_tokens_to_ids(token)
    known = index is not None and tokenizer.convert_ids_to_tokens(index) == token
    return int(index) if known else None


def _ids_of(tokenizer: Tokenizer, tokens: Collection[str]) -> frozenset[int]:
    return frozenset(i for token in tokens if (i := token_id(tokenizer, token)) is not None)


def _forget(known: dict[Any, list[int]]) -> None:
    """Begin anew where much is remembered."""
    if len(known) > KEPT or sum(map(len, known.values())) > KEPT_TOKENS:
        known.clear()


def _parted(tokenizer: Tokenizer, control: frozenset[int]) -> dict[str, int]:
    """The control tokens by spelling, where each cuts a text in two; else nothing.

    Tokenizers look for added tokens before anything else, and encode what is between them by
    itself. Not so where one takes the space beside it, or is found only in normalised text.
    """
    added = tokenizer.added_tokens_decoder
    tokens = {index: added[index] for index in control if index in added}
    others = [token.content for index, token in added.items() if index not in control]
    normalises = tokenizer.backend_tokenizer.normalizer is not None
    cuts = len(tokens) == len(control) and not any(
        token.lstrip
        or token.rstrip
        or token.single_word
        or (token.normalized and normalises)
        or any(token.content in other for other in others)
        for token in tokens.values()
    )
    return {token.content: index for index, token in tokens.items()} if cuts else {}
