"""Text to token ids: control tokens where the template put them, ordinary text elsewhere."""

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

Tokenizer = Any  # a transformers fast tokenizer, kept untyped so that this needs no torch

Range = tuple[int, int]  # of characters: from the first, to before the second

# Something harmless to stand before a segment that continues a text; one that does not merge.
ANCHORS = ("\n", ".", "a", "0")

# Segments remembered, and their tokens: those of a long conversation, which is encoded again
# without its answer, or with fewer turns.
KEPT, KEPT_TOKENS = 400, 1_000_000


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The tokens that not every text may become: their ids, and what finds their spellings.

    Those in `control` come from the template alone, never from what a message says. Those in
    `own` are the model's own words, as `<think>`: they come from answers, never from what others
    say.
    """

    control: frozenset[int]
    own: frozenset[int]
    spellings: re.Pattern[str]
    own_spellings: re.Pattern[str]

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


@dataclass(slots=True, eq=False)
class SegmentEncoder:
    """Encodes segments of a text, each by itself, and remembers them.

    `prefixes` says that the tokenizer puts a space before whatever it is given, as those made from
    SentencePiece do; a segment that continues a text must not get one. `parted` says that what lies
    between control tokens can be encoded by itself, and then it is encoded once.
    """

    tokenizer: Tokenizer
    special: SpecialTokens
    prefixes: bool
    parted: bool
    known: dict[str, list[int]] = field(default_factory=dict, repr=False)
    spelt: dict[tuple[str, bool], list[int]] = field(default_factory=dict, repr=False)

    def encode(self, text: str, *, continues: bool, ordinary: bool) -> list[int]:
        """The ids of `text`, which are none of the special tokens where it is `ordinary`."""
        if not text:
            return []
        if ordinary:
            key = (text, continues)
            if key not in self.spelt:
                _forget(self.spelt)
                self.spelt[key] = self._spelt_out(text, continues)
            return self.spelt[key]
        return self._in_parts(text) if self.parted else self._encoded(text, continues, split=False)

    def _in_parts(self, text: str) -> list[int]:
        parts = self.special.spellings.split(text)  # control tokens and what is between them
        if not self.known.keys() >= set(parts):
            _forget(self.known)
            missing = [part for part in dict.fromkeys(parts) if part not in self.known]
            core = self.tokenizer.backend_tokenizer  # does not count where each token lies
            core.no_truncation()
            core.no_padding()
            core.encode_special_tokens = False
            found = core.encode_batch_fast(missing, add_special_tokens=False)
            self.known.update((part, e.ids) for part, e in zip(missing, found, strict=True))
        return list(chain.from_iterable(self.known[part] for part in parts))

    def _spelt_out(self, text: str, continues: bool) -> list[int]:
        forbidden = self.special.control | self.special.own
        ids = self._encoded(text, continues, split=True)
        if forbidden.isdisjoint(ids):
            return ids
        # The vocabulary itself holds the spelling: cut it after its first character.
        patterns = (self.special.spellings, self.special.own_spellings)
        cuts = sorted({m.start() + 1 for pattern in patterns for m in pattern.finditer(text)})
        parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        ids = self._joined(parts, continues)
        # Spelt otherwise than it is written, in capitals say: nothing is left but single signs.
        return ids if forbidden.isdisjoint(ids) else self._joined(text, continues)

    def _joined(self, parts: Sequence[str], continues: bool) -> list[int]:
        ids: list[int] = []
        for part in filter(None, parts):
            ids += self._encoded(part, continues or bool(ids), split=True)
        return ids

    def _encoded(self, text: str, continues: bool, *, split: bool) -> list[int]:
        encode: Callable[[str], list[int]] = partial(
            self.tokenizer.encode, add_special_tokens=False, split_special_tokens=split
        )
        if continues and self.prefixes:
            for anchor in ANCHORS:
                before, both = encode(anchor), encode(anchor + text)
                if both[: len(before)] == before:
                    return both[len(before) :]
        return encode(text)


class _Window(NamedTuple):
    """A part of a text, its ids, and the borders in it."""

    start: int
    end: int
    ids: list[int]
    borders: Sequence[int]


@dataclass(frozen=True, slots=True)
class Encoder:
    """Encodes whole texts: their segments, joined, and cut at borders."""

    special: SpecialTokens
    segments: SegmentEncoder

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
        ids_of = partial(self._ids, text, ordinary)
        whole = ids_of(0, len(text))
        if not borders:
            return whole, []
        ids: list[int] = []
        places: list[int] = []
        for window in self._windows(text, ordinary, whole, borders):
            del ids[-1:]  # the control token that both windows hold
            cut, within = _cut(window, ids_of)
            places += [len(ids) + place for place in within]
            ids += cut
        return ids, places

    def _ids(self, text: str, ordinary: Sequence[Range], start: int, end: int) -> list[int]:
        ids: list[int] = []
        for first, last, plain in _segments(start, end, ordinary):
            ids += self.segments.encode(text[first:last], continues=first > 0, ordinary=plain)
        return ids

    def _windows(
        self, text: str, ordinary: Sequence[Range], whole: list[int], borders: Sequence[int]
    ) -> Iterator[_Window]:
        """From each control token to the next, which may take the space before it: with both."""
        gaps = [(a, b) for a, b, plain in _segments(0, len(text), ordinary) if not plain]
        marks = [m.span() for gap in gaps for m in self.special.spellings.finditer(text, *gap)]
        control = self.special.control
        at = [place for place, token in enumerate(whole) if token in control]
        if len(at) != len(marks):  # unknown characters count as control tokens too
            marks, at = [], []
        start = first_id = 0
        for (mark, end), place in zip(marks, at, strict=True):
            near = bisect_right(borders, mark)
            yield _Window(start, end, whole[first_id : place + 1], borders[:near])
            start, first_id, borders = mark, place, borders[near:]
        yield _Window(start, len(text), whole[first_id:], borders)


def _segments(start: int, end: int, ordinary: Sequence[Range]) -> Iterator[tuple[int, int, bool]]:
    """From `start` to `end` in order: where each segment lies, and whether it is ordinary."""
    for first, last in ordinary[bisect_right(ordinary, start, key=itemgetter(1)) :]:
        if first >= end:
            break
        middle = max(start, first)
        yield start, middle, False
        start = min(last, end)
        yield middle, start, True
    yield start, end, False


def _cut(window: _Window, ids_of: Callable[[int, int], list[int]]) -> tuple[list[int], list[int]]:
    """The window's ids with no token that reaches across a border, and each border's place."""
    ids: list[int] = []
    places: list[int] = []
    todo = [window]
    while todo:
        start, end, here, borders = todo.pop()
        found = []
        for number, border in enumerate(borders):
            left = ids_of(start, border)
            if here[: len(left)] != left:
                todo.append(_Window(border, end, ids_of(border, end), borders[number + 1 :]))
                todo.append(_Window(start, border, left, borders[:number]))
                break
            found.append(len(ids) + len(left))
        else:
            ids += here
            places += found
            if todo:  # what ends here is cut from the next
                places.append(len(ids))
    return ids, places


def encoder(
    tokenizer: Tokenizer, more_control: Collection[str] = (), own: Collection[str] = ()
) -> Encoder:
    """The encoder of `tokenizer`.

    `more_control` are control tokens, and `own` the model's own words, that the tokenizer does not
    mark as special itself.
    """
    control = special_ids(tokenizer) | _ids_of(tokenizer, more_control)
    names = tokenizer.convert_ids_to_tokens(sorted(control))
    letter = tokenizer.encode("x", add_special_tokens=False)
    (first, *_) = tokenizer.convert_ids_to_tokens(letter) or [""]
    prefixes = first[:1] in ("▁", "Ġ")
    own_ids = _ids_of(tokenizer, own) - control
    special = SpecialTokens(control, own_ids, spelling(names), spelling(own))
    parted = not prefixes and _parted(tokenizer, control)
    return Encoder(special, SegmentEncoder(tokenizer, special, prefixes, parted))


def spelling(names: Collection[str | None]) -> re.Pattern[str]:
    """What finds each of `names` in a text, the longest where several begin, as its one group."""
    longest_first = sorted(filter(None, names), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


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


def _parted(tokenizer: Tokenizer, control: frozenset[int]) -> bool:
    """Whether each control token cuts a text in two.

    Tokenizers look for added tokens before anything else, and encode what is between them by
    itself. Not so where one takes the space beside it, or is found only in normalised text.
    """
    added = tokenizer.added_tokens_decoder
    others = [token.content for index, token in added.items() if index not in control]
    normalises = tokenizer.backend_tokenizer.normalizer is not None
    return control <= added.keys() and not any(
        token.lstrip
        or token.rstrip
        or token.single_word
        or (token.normalized and normalises)
        or any(token.content in other for other in others)
        for token in map(added.__getitem__, control)
    )
