"""How answers came out as texts: ended, empty, looping, copied, in another language."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import comparable
from kilotune.data.languages import language
from kilotune.data.scripts import script

# A word, a sign of writing without spaces, or a punctuation mark. A word without an end, such as
# "aaaa…", is as many units as make a loop of it.
UNITS = re.compile(r"[฀-໿぀-ヿ㐀-鿿]|(?:(?![฀-໿぀-ヿ㐀-鿿])\w){1,16}|[^\w\s]")
# Loops: the size of the n-grams, the fewest units that can be one, and the share that says so.
# Prose of some hundred words repeats under a tenth of its 4-grams.
LOOP_N, LOOP_LEAST, LOOP_SHARE = 4, 12, 0.5
# Echoes: eight units in a row are no chance, and half an answer of them is a copy.
ECHO_N, ECHO_SHARE = 8, 0.5
# A letter or two belong to any language.
SCRIPT_LEAST = 3
# What is worth a word: this share of the answers.
WORTH_SAYING = 0.05
# Fewer answers than these cannot show that a model generates nothing.
ENOUGH = 5


@dataclass(frozen=True, slots=True)
class Health:
    """Of so many `answers`, how many came out in each of these ways; one answer may in several.

    `stopped` ended by themselves, `cut` at the length limit. `empty` hold nothing. `looping`
    repeat themselves: at least half of their 4-grams of words and signs are ones that came before
    (rep-4 of Welleck et al. 2020), in 12 units or more. `echoing` copy the prompt: at least half
    of their runs of 8 units stand in it. `foreign` are in another script, or plainly in another
    language, than the reference. `unparsable` say something that could not be read as an answer
    of the task. What is so in the reference too does not count as looping or echoing.
    """

    answers: int
    stopped: int
    cut: int
    empty: int
    looping: int
    echoing: int
    foreign: int
    unparsable: int

    def share(self, way: str) -> float:
        """The share of the answers that came out in `way`, the name of a field."""
        return float(getattr(self, way)) / max(1, self.answers)


FAULTS = {
    "empty": "empty",
    "unparsable": "not readable",
    "cut": "at the length limit",
    "looping": "repeating themselves",
    "echoing": "copying the prompt",
    "foreign": "in another language than the reference",
}


def health(
    texts: Sequence[str],
    *,
    stopped: Sequence[bool],
    unread: Sequence[bool],
    prompts: Sequence[str],
    references: Sequence[str | None],
) -> Health:
    """How answers came out: `texts`, whether each stopped by itself, whether it was unreadable.

    `prompts` are what was asked, `references` the true answers, None where there is none.
    """
    rows = list(zip(texts, prompts, references, strict=True))
    return Health(
        answers=len(texts),
        stopped=sum(stopped),
        cut=len(stopped) - sum(stopped),
        empty=sum(not text.strip() for text in texts),
        looping=sum(loops(text) and not loops(true or "") for text, _, true in rows),
        echoing=sum(echoes(text, asked, true or "") for text, asked, true in rows),
        foreign=sum(foreign(text, true or "") for text, _, true in rows),
        unparsable=sum(bad and bool(text.strip()) for bad, text in zip(unread, texts, strict=True)),
    )


def faults(found: Health) -> list[str]:
    """What is off, in words, the commonest first: `12 of 100 at the length limit`."""
    counts = {way: getattr(found, way) for way in FAULTS}
    common = [way for way in FAULTS if found.share(way) >= WORTH_SAYING]
    return [
        f"{counts[way]} of {found.answers} {FAULTS[way]}"
        for way in sorted(common, key=lambda way: -counts[way])
    ]


def repeated(text: str) -> float:
    """The share of the 4-grams of `text` that came before in it; 0 for fewer than 12 units."""
    units = UNITS.findall(text)
    if len(units) < LOOP_LEAST:
        return 0.0
    grams = _grams(units, LOOP_N)
    return 1 - len(set(grams)) / len(grams)


def loops(text: str) -> bool:
    """Whether a text repeats itself."""
    return repeated(text) >= LOOP_SHARE


def echoes(answer: str, prompt: str, reference: str) -> bool:
    """Whether most of an answer is copied from its prompt, and most of its reference is not."""
    return _copied(answer, prompt) >= ECHO_SHARE > _copied(reference, prompt)


def foreign(answer: str, reference: str) -> bool:
    """Whether an answer is in another script or, where that is plain, language than `reference`."""
    for kind in (lambda text: script(text, SCRIPT_LEAST), language):
        ours, theirs = kind(answer), kind(reference)
        if ours and theirs and ours != theirs:
            return True
    return False


def broken(texts: Sequence[str], found: Health) -> str:
    """Why a model that was not tuned yet cannot generate, or nothing.

    Every answer ends before it begins, or all are the same word or sign over and over, as of
    broken weights. That a model never stops by itself is no fault: one without chat training does
    not, and tuning teaches it. Neither is one word as the answer to everything, nor white space
    up to a short limit.
    """
    if len(texts) < ENOUGH:
        return ""
    if found.empty == found.stopped == len(texts):
        return f"all {len(texts)} answers are empty"
    if len(set(texts)) == 1 and _one_unit(texts[0]):
        return f"all {len(texts)} answers are '{texts[0][:24]}'"
    return ""


def _one_unit(text: str) -> bool:
    """Whether a text is one word or sign over and over."""
    units = UNITS.findall(text)
    return len(units) >= LOOP_N and len(set(units)) == 1


def _copied(text: str, source: str) -> float:
    runs = _grams(UNITS.findall(comparable(text)), ECHO_N)
    if not runs:
        return 0.0
    known = set(_grams(UNITS.findall(comparable(source)), ECHO_N))
    return sum(run in known for run in runs) / len(runs)


def _grams(units: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(units[i : i + size]) for i in range(len(units) - size + 1)]
