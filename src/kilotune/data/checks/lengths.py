"""Texts far longer or shorter than the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding, about_rows
from kilotune.data.scripts import SPACELESS
from kilotune.messages.sentences import Phrase, phrase

CountTokens = Callable[[str], int]

# Lengths are about log-normal, so their logarithms are compared: further from the median than this
# many standard deviations, estimated robustly as 1.4826 times the median absolute deviation...
DEVIATIONS = 5
NORMAL_MAD = 1.4826
# ...which is taken as at least this, so that texts of nearly one length do not make a few words
# more an outlier (5 x 0.35 is a factor of 5.8).
LEAST_SPREAD = 0.35
# From fewer examples neither median nor deviation says much.
LEAST_EXAMPLES = 20

# English text has about four characters a token; writing without spaces about one sign.
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a text per example: the least, the median, the 95th percentile, the most."""

    least: int
    median: int
    p95: int
    most: int
    estimated: bool


def estimate_tokens(text: str) -> int:
    """The tokens of a text without its tokenizer: a quarter of its letters, each Han sign one."""
    signs = 0 if text.isascii() else len(SPACELESS.findall(text))
    return signs + -(-(len(text) - signs) // CHARACTERS_PER_TOKEN)


def prompt_tokens(examples: Sequence[Example], count: CountTokens | None) -> NDArray[np.int64]:
    """The tokens of each example's prompt, without its system message."""
    count = count or estimate_tokens
    return np.array(
        [sum(count(m.text) for m in e.prompt if m.role != "system") for e in examples],
        dtype=np.int64,
    )


def summary(lengths: NDArray[np.int64], *, estimated: bool) -> Lengths:
    """What a reader wants to know of lengths, of which there is at least one."""
    least, median, p95, most = np.percentile(lengths, (0, 50, 95, 100)).round().astype(int).tolist()
    return Lengths(least, median, p95, most, estimated)


def outliers(
    examples: Sequence[Example], task: Task, count_tokens: CountTokens | None
) -> list[Finding]:
    """Prompts (and answers, where they are not labels) of a length unlike the rest."""
    measured = {"prompts": prompt_tokens(examples, count_tokens)}
    if task != "classify":
        count = count_tokens or estimate_tokens
        measured["answers"] = np.array([count(example.answer or "") for example in examples])
    by = phrase("estimated-tokens" if count_tokens is None else "tokens")
    return [*_beyond("long", examples, measured, by), *_beyond("short", examples, measured, by)]


def _beyond(
    side: Literal["long", "short"],
    examples: Sequence[Example],
    measured: dict[str, NDArray[np.int64]],
    by: Phrase,
) -> list[Finding]:
    outside = np.zeros(len(examples), dtype=bool)
    limits = []
    for name, lengths in measured.items():
        low, median, high = _limits(lengths)
        # An empty text is a fault of its own.
        beyond = lengths > high if side == "long" else (lengths < low) & (lengths > 0)
        if beyond.any():
            outside |= beyond
            limit = high if side == "long" else low
            said = {"of": phrase(name), "limit": limit, "by": by, "median": median}
            limits.append(phrase(f"{side}-limit", **said))
    rows = [example.id for example, out in zip(examples, outside, strict=True) if out]
    return about_rows(f"{side}-outlier", rows, limits=limits)


def _limits(lengths: NDArray[np.int64]) -> tuple[float, float, float]:
    """The least length that is not short, the median, and the greatest that is not long."""
    logs = np.log(lengths[lengths > 0])
    if len(logs) < LEAST_EXAMPLES:
        return 0.0, 0.0, float("inf")
    median = float(np.median(logs))
    spread = max(LEAST_SPREAD, NORMAL_MAD * float(np.median(np.abs(logs - median))))
    reach = DEVIATIONS * spread
    return float(np.exp(median - reach)), float(np.exp(median)), float(np.exp(median + reach))
