"""Decoding settings raced on validation by successive halving, and the winner put to the proof.

Half of the examples serve the race (Karnin et al. 2013; Jamieson and Talwalkar 2016: many
candidates see few examples, the best third goes on and sees three times as many). The other half
decides whether one of the finalists is surely better than greedy decoding: the race has picked
them for doing well on its own half, which therefore proves nothing.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from kilotune.evaluation.adoption import SEEDS, Adoption, Candidate, Trials, adopt_among
from kilotune.evaluation.evidence import ENOUGH
from kilotune.recipe.schema import DecodingSettings

TEMPERATURES, TOP_KS, TOP_PS = (0.3, 0.7, 1.0), (0, 20, 50), (0.8, 0.9, 1.0)
PENALTIES = (1.0, 1.1)
# One in so many goes on to the next round, which has so many times the examples.
KEPT = 3
# Fewer examples than this tell candidates apart by chance alone.
FEWEST = 4
FINALISTS = 3

Ask = Callable[[DecodingSettings, Sequence[str], int], Sequence[float]]


@dataclass(frozen=True, slots=True)
class RaceRound:
    """How the candidates still in the race did, on so many examples with so many seeds each."""

    examples: int
    seeds: int
    scores: dict[str, float]


@dataclass(frozen=True, slots=True)
class DecodingChoice:
    """The settings to decode with, why, and what they were chosen by.

    `raced` and `decided` count the examples of each half, `answers` all that were generated.
    """

    chosen: DecodingSettings
    reason: str
    rounds: tuple[RaceRound, ...]
    proof: dict[str, Adoption]
    raced: int
    decided: int
    answers: int


def candidates(limits: DecodingSettings) -> list[DecodingSettings]:
    """Greedy decoding first, then what is raced, the calmest first.

    The length limit and the stop strings are those of `limits`.
    """
    kept = {"max_new_tokens": limits.max_new_tokens, "stop": limits.stop}
    greedy = [DecodingSettings(**kept, repetition_penalty=penalty) for penalty in PENALTIES]
    sampled = [
        DecodingSettings(**kept, temperature=t, top_k=k, top_p=p, repetition_penalty=penalty)
        for penalty, t, p, k in product(PENALTIES, TEMPERATURES, TOP_PS, TOP_KS)
    ]
    return [*greedy, *sampled]


def title(settings: DecodingSettings) -> str:
    """The settings in words, without their limits."""
    parts = ["greedy"]
    if settings.temperature:
        parts = [f"temperature {settings.temperature:g}"]
        parts += [f"top-k {settings.top_k}"] if settings.top_k else []
        parts += [f"top-p {settings.top_p:g}"] if settings.top_p < 1 else []
    if settings.repetition_penalty != 1:
        parts.append(f"repetition penalty {settings.repetition_penalty:g}")
    return ", ".join(parts)


def choose(ids: Sequence[str], limits: DecodingSettings, ask: Ask, seed: int) -> DecodingChoice:
    """The decoding that is surely better than greedy on the examples `ids`, else greedy.

    `ask` gives the scores of some of the examples under settings and a seed.
    """
    shuffled = random.Random(seed).sample(list(ids), len(ids))
    racing, deciding = shuffled[: len(ids) // 2], shuffled[len(ids) // 2 :]
    asked = _Asked(ask, seed)
    greedy, *others = candidates(limits)
    if len(deciding) < ENOUGH:
        reason = f"greedy decoding stays: {len(ids)} validation examples are too few to decide"
        return DecodingChoice(greedy, reason, (), {}, 0, 0, 0)
    rounds, finalists = _race(others, racing, asked)
    before = asked.trials(greedy, deciding)
    tried = {title(s): Candidate(asked.trials(s, deciding)) for s in finalists}
    proof = adopt_among(before, tried)
    best = max(
        (s for s in finalists if proof[title(s)].decision == "better"),
        key=lambda s: proof[title(s)].after,
        default=None,
    )
    if best is not None:
        reason = f"{title(best)} against greedy decoding: {proof[title(best)].reason}"
    else:
        name = max(proof, key=lambda name: proof[name].after)
        reason = f"greedy decoding stays; {name}, the best of the others: {proof[name].reason}"
    return DecodingChoice(
        best or greedy, reason, tuple(rounds), proof, len(racing), len(deciding), asked.answers
    )


def _race(
    runners: list[DecodingSettings], ids: Sequence[str], asked: "_Asked"
) -> tuple[list[RaceRound], list[DecodingSettings]]:
    """All rounds, and who is left at the end."""
    rounds = []
    sizes = {max(FEWEST, len(ids) // share) for share in (KEPT**2, KEPT, 1)}
    for size in sorted(sizes):
        last = size == len(ids)
        means = {title(s): asked.mean(s, ids[:size], SEEDS if last else 1) for s in runners}
        rounds.append(RaceRound(size, SEEDS if last else 1, means))
        left = FINALISTS if last else max(FINALISTS, -(-len(runners) // KEPT))
        # Sorting is stable: among equals the calmer stays.
        runners = sorted(runners, key=lambda s: -means[title(s)])[:left]
    return rounds, runners


class _Asked:
    """Scores by setting, seed and example, each asked for once."""

    def __init__(self, ask: Ask, seed: int) -> None:
        self._ask, self._seed = ask, seed
        self._known: dict[tuple[str, int], dict[str, float]] = {}

    @property
    def answers(self) -> int:
        """How many there are."""
        return sum(map(len, self._known.values()))

    def scores(self, settings: DecodingSettings, ids: Sequence[str], number: int) -> list[float]:
        known = self._known.setdefault((title(settings), number), {})
        new = [id for id in ids if id not in known]
        if new:
            known.update(zip(new, self._ask(settings, new, self._seed + number), strict=True))
        return [known[id] for id in ids]

    def mean(self, settings: DecodingSettings, ids: Sequence[str], seeds: int) -> float:
        values = [v for n in _numbers(settings, seeds) for v in self.scores(settings, ids, n)]
        return sum(values) / len(values)

    def trials(self, settings: DecodingSettings, ids: Sequence[str]) -> Trials:
        seeds = [
            dict(zip(ids, self.scores(settings, ids, number), strict=True))
            for number in _numbers(settings, SEEDS)
        ]
        return Trials(tuple(seeds), deterministic=not settings.temperature)


def _numbers(settings: DecodingSettings, seeds: int) -> range:
    """Greedy decoding says the same with every seed."""
    return range(seeds if settings.temperature else 1)
