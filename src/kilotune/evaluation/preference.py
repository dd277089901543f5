"""Which of two answers another model prefers: the base model's or the tuned model's.

Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (NeurIPS 2023), section 3: a
judge favours a place, most often the first, so every pair is shown in both orders, and an answer
wins where it is preferred in both (3.4).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kilotune.evaluation.evidence import Estimate, PairedTest, mean_figure, sign_test

Place = Literal["first", "second", "tie", "unread"]
Outcome = Literal["tuned", "base", "tie", "inconsistent", "unread", "same"]

# After the prompt of MT-Bench for pairs (figure 5 of the paper), without its reasoning aloud.
PROMPT = """Compare two answers to the same question. Judge how correct, helpful and to the point \
they are, and nothing else: not their order, and not their length. The reference answer shows what \
was wanted; another wording of it is as good.

[Question]
{question}

[Reference answer]
{reference}

[Answer A]
{first}

[Answer B]
{second}

Which answer is better? Say [[A]] if it is A, [[B]] if it is B, [[C]] if they are equally good. \
Say nothing else."""

PLACES: dict[str, Place] = {"A": "first", "B": "second", "C": "tie", "TIE": "tie"}
MARKED = re.compile(r"\[\[\s*(A|B|C|TIE)\s*\]\]", re.IGNORECASE)
ALONE = re.compile(r"\W*(?:answer\s+)?(A|B|C|TIE)\W*", re.IGNORECASE)
POINTS = {"tuned": 1.0, "base": 0.0}


class Judge(Protocol):
    """Another model, or whatever answers in its place."""

    def __call__(self, prompts: Sequence[str]) -> Sequence[str]:
        """One reply to each prompt; "" where there is none."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What both models answered to one example."""

    id: str
    question: str
    reference: str
    base: str
    tuned: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What came of one pair, and both replies: with the base model's answer first, and second."""

    id: str
    outcome: Outcome
    replies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """What a judge made of `pairs`.

    `rate` is the share of pairs in which the tuned model's answer wins, a tie counting half, with
    its interval; `paired` the sign test of wins against losses. Among the ties are `same`, pairs of
    equal answers, which are not asked about, and `inconsistent`, pairs judged otherwise in the
    other order; of these the first place was preferred both times in `first`, the second in
    `second`. `unread`, pairs of which a reply names no answer, count nowhere.
    """

    judge: str
    prompt: str
    pairs: int
    rate: Estimate
    paired: PairedTest
    same: int
    inconsistent: int
    first: int
    second: int
    unread: int
    opinions: tuple[Opinion, ...]


def compare(
    judge: Judge, pairs: Sequence[Pair], *, name: str, prompt: str, samples: int, seed: int
) -> Preference:
    """Have `judge` compare both answers of every pair, in both orders, by `prompt`."""
    asked = [pair for pair in pairs if pair.base.strip() != pair.tuned.strip()]
    prompts = [
        worded(prompt, pair, *answers)
        for pair in asked
        for answers in ((pair.base, pair.tuned), (pair.tuned, pair.base))
    ]
    replies = list(judge(prompts))
    found = dict(
        zip((pair.id for pair in asked), zip(*[iter(replies)] * 2, strict=True), strict=True)
    )
    opinions = tuple(
        Opinion(pair.id, outcome(*found[pair.id]), found[pair.id])
        if pair.id in found
        else Opinion(pair.id, "same")
        for pair in pairs
    )
    counts = [opinion.outcome for opinion in opinions]
    points = [POINTS.get(outcome, 0.5) for outcome in counts if outcome != "unread"]
    places = [tuple(map(read, opinion.replies)) for opinion in opinions]
    return Preference(
        judge=name,
        prompt=prompt,
        pairs=len(pairs),
        rate=mean_figure(points, samples=samples, seed=seed),
        paired=sign_test([0.5] * len(points), points),
        same=counts.count("same"),
        inconsistent=counts.count("inconsistent"),
        first=places.count(("first", "first")),
        second=places.count(("second", "second")),
        unread=counts.count("unread"),
        opinions=opinions,
    )


def worded(prompt: str, pair: Pair, first: str, second: str) -> str:
    """The prompt of one pair in one order. Braces in what is put in stay as they are."""
    fields = {
        "question": pair.question, "reference": pair.reference, "first": first, "second": second,
    }  # fmt: skip
    return re.sub(r"\{(question|reference|first|second)\}", lambda m: fields[m.group(1)], prompt)


def outcome(base_first: str, tuned_first: str) -> Outcome:
    """What the replies to both orders amount to: a win needs both."""
    places = read(base_first), read(tuned_first)
    if "unread" in places:
        return "unread"
    if places == ("second", "first"):
        return "tuned"
    if places == ("first", "second"):
        return "base"
    return "tie" if places == ("tie", "tie") else "inconsistent"


def read(reply: str) -> Place:
    """The place that a reply prefers: `[[A]]`, `[[B]]`, `[[C]]` in it, or that letter alone.

    One that names several has not decided.
    """
    named = {found.upper() for found in MARKED.findall(reply)}
    if not named and (alone := ALONE.fullmatch(reply.strip())):
        named = {alone.group(1).upper()}
    places = {PLACES[letter] for letter in named}
    return places.pop() if len(places) == 1 else "unread"


def in_words(found: Preference) -> str:
    """The outcome on one line."""
    paired = found.paired
    said = (
        f"{found.judge} prefers the tuned model's answer in {paired.wins} of {found.pairs} pairs, "
        f"the base model's in {paired.losses} (exact sign test, p = {paired.p_value:.2g}); "
        f"{paired.ties} ties, {found.inconsistent} of them judged otherwise in the other order"
    )
    return f"{said}; {found.unread} replies without a verdict" if found.unread else said
