"""The ablation itself: one factor after another, halving, decisions. No model and no disk here.

Everything follows from the trials, so that an ablation which was stopped is gone on with by doing
it again: trials that are finished are looked up, and nothing else takes time.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise

import numpy as np

from kilotune.ablation.ladder import Variant, factors_of, label_of, order, variants
from kilotune.data.example import Task
from kilotune.evaluation.adoption import NOT_WORSE, Adoption, Trials, adopt, crossed_gain
from kilotune.evaluation.evidence import (
    ENOUGH,
    Estimate,
    Figure,
    Unavailable,
    mean_figure,
    paired_gain,
)
from kilotune.evaluation.task_metrics import TASKS
from kilotune.evaluation.verdict import Observed, Verdict, decide
from kilotune.recipe.difference import flat_settings
from kilotune.recipe.schema import Recipe
from kilotune.runs.cost import total
from kilotune.runs.outcomes import Rung, TriedVariant
from kilotune.runs.trials import Facts, Trial, Unit, Wanted

# Trials in the order asked for. Those that are asked for together do not depend on each other, and
# may be done in any order or at once.
Run = Callable[[Sequence[Wanted]], list[Trial]]
SAMPLES = 2000  # of the bootstrap behind a verdict


class BudgetSpentError(Exception):
    """No further trial may be begun; what was found so far stands."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """How far an ablation is. `best` may be used at any time; `ended` says why it is over, `spent`
    that it was by its budget.
    """

    best: Recipe
    rungs: tuple[Rung, ...] = ()
    verdict: Verdict | None = None
    out_of_fold: Estimate | None = None
    ended: str = ""
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of an ablation: over which units, against which floor, with which factors.

    `floor` holds the score of every example by the system that a verdict measures against.
    `factors` are values of the user's own; `only` are the factors to try, if not all.
    """

    units: tuple[Unit, ...]
    task: Task
    facts: Facts
    floor: Mapping[str, float]
    factors: Mapping[str, Sequence[object]] = field(default_factory=dict)
    only: tuple[str, ...] = ()


def units_of(folds: int, seeds: Sequence[int]) -> tuple[Unit, ...]:
    """Every fold with the first seed, then with the next: the same for every candidate."""
    return tuple(Unit(fold, seed) for seed in seeds for fold in range(folds))


def climb(
    base: Recipe, question: Question, run: Run, changed: Callable[[Ablation], None]
) -> Ablation:
    """Try each factor once from the best so far; the verdict on that orders those that are left.

    `run` does trials, or finds them; it raises BudgetSpentError when there must be no more.
    `changed` is told after every rung.
    """
    state = Ablation(base)
    left = factors_of(base, question.facts, question.factors, question.only)
    try:
        while True:
            verdict, figure = look_at(state.best, question, run)
            state = replace(state, verdict=verdict, out_of_fold=figure)
            changed(state)
            left = order(left, verdict.name)
            if not left:
                break
            candidates = variants(state.best, left[0], question.facts, question.factors)
            if candidates:
                rung, best = try_rung(state.best, left[0], candidates, question, run)
                rung = replace(rung, verdict=verdict.name)
                state = replace(state, best=best, rungs=(*state.rungs, rung))
            left = left[1:]
    except BudgetSpentError as spent:
        not_tried = ", ".join(left) or "nothing"
        state = replace(state, ended=f"{spent}; not tried: {not_tried}", spent=True)
    else:
        state = replace(state, ended="every factor was tried")
    changed(state)
    return state


def look_at(recipe: Recipe, question: Question, run: Run) -> tuple[Verdict, Estimate]:
    """The verdict on `recipe` from all its trials, and its out-of-fold score."""
    trials = run([(recipe, unit) for unit in question.units])
    held = mean_by_example(trials)
    ids = list(held)
    values = [held[id] for id in ids]
    metrics = TASKS[question.task]
    closed = metrics.score is None
    figure = mean_figure(values, samples=SAMPLES, seed=0)
    training = [score for trial in trials for score in trial.training.values()]
    seen = Observed(
        metric=metrics.exact if closed else metrics.graded,
        train=mean_figure(training, samples=SAMPLES, seed=0),
        validation=figure,
        gain=paired_gain([question.floor[id] for id in ids], values, samples=SAMPLES, seed=0),
        over_base=Unavailable("the base model was not asked"),
        losses=_means(trial.losses for trial in trials),
        validation_losses=_means(trial.validation_losses for trial in trials),
    )
    return decide(recipe, seen), figure


def try_rung(
    best: Recipe, factor: str, candidates: Sequence[Variant], question: Question, run: Run
) -> tuple[Rung, Recipe]:
    """Try every value of one factor, and adopt at most one; returns the best afterwards."""
    units = question.units
    before = run([(best, unit) for unit in units])
    given: dict[str, list[Trial]] = {v.label: [] for v in candidates}
    dropped: dict[str, str] = {}
    for start, end in pairwise((0, *stages(len(units)))):
        alive = [v for v in candidates if v.label not in dropped]
        came = iter(run([(v.recipe, unit) for v in alive for unit in units[start:end]]))
        for variant in alive:
            given[variant.label] += islice(came, end - start)
        if end < len(units):
            gains = {v.label: gain(before[:end], given[v.label]) for v in alive}
            dropped |= hopeless({v.label: v.simpler for v in alive}, gains, end)
    decided = decide_rung(before, candidates, given, dropped, len(units))
    chosen = choose([v for v in candidates if v.label in decided], decided, given)
    rows = tuple(tried(v, before, given, dropped, decided, chosen) for v in candidates)
    rung = Rung(factor, _value_of(best, factor), "", rows, chosen.label if chosen else None)
    return rung, chosen.recipe if chosen else best


def stages(units: int) -> list[int]:
    """How many units are done when the hopeless are next looked for: 1, 2, 4, ... and all."""
    return [*(2**k for k in range(units.bit_length()) if 2**k < units), units]


def hopeless(
    simpler: Mapping[str, bool], gains: Mapping[str, Estimate], done: int
) -> dict[str, str]:
    """Which candidates get no further trial, and why (successive halving, Jamieson 2016).

    Those that are surely worse, and of the rest the worse half; a simpler one is given the point
    that the rule of adoption gives it. Where there are too few examples for an interval, nothing is
    known yet. One candidate is always left, unless all are surely worse.
    """
    if not all(isinstance(found, Figure) for found in gains.values()):
        return {}
    trials = f"{done} trial{'s' if done > 1 else ''}"
    sure = {n for n, g in gains.items() if isinstance(g, Figure) and g.high < 0}
    out = dict.fromkeys(sure, f"surely worse after {trials}")
    rest = [name for name in gains if name not in sure]
    ranked = sorted(rest, key=lambda n: -(_value(gains[n]) + NOT_WORSE * simpler[n]))
    keep = math.ceil(len(gains) / 2)
    return out | dict.fromkeys(ranked[keep:], f"in the worse half after {trials}")


def decide_rung(
    before: Sequence[Trial],
    candidates: Sequence[Variant],
    given: Mapping[str, Sequence[Trial]],
    dropped: Mapping[str, str],
    units: int,
) -> dict[str, Adoption]:
    """The decision on each candidate that all units were done for.

    The rung is one family: those that were dropped count too, as if their trials had said nothing
    at all, so that the first of Holm's steps is divided by all (and no later one is needed, since
    one is adopted at most).
    """
    old, spent = as_trials(before), total(trial.cost for trial in before)
    decided = {}
    for variant in candidates:
        done = given[variant.label]
        if variant.label in dropped or len(done) < units:
            continue
        cheaper = variant.simpler or total(trial.cost for trial in done).cheaper_than(spent)
        decided[variant.label] = adopt(
            old, as_trials(done), cheaper=cheaper, family=len(candidates)
        )
    return decided


def choose(
    candidates: Sequence[Variant],
    decided: Mapping[str, Adoption],
    given: Mapping[str, Sequence[Trial]],
) -> Variant | None:
    """Of those that may be adopted the one that gains most; of merely cheaper ones the cheapest."""
    better = [v for v in candidates if decided[v.label].decision == "better"]
    if better:
        return max(better, key=lambda v: _value(decided[v.label].gain))
    cheaper = [v for v in candidates if decided[v.label].decision == "cheaper"]

    def tokens(variant: Variant) -> int:
        cost = total(trial.cost for trial in given[variant.label])
        return cost.trained + cost.generated

    return min(cheaper, key=tokens, default=None)


def as_trials(trials: Sequence[Trial]) -> Trials:
    """Out-of-fold scores by seed: each fold's held-out examples together."""
    seeds: dict[int, dict[str, float]] = defaultdict(dict)
    for trial in trials:
        seeds[trial.unit.seed] |= trial.scores
    return Trials(tuple(seeds.values()))


def mean_by_example(trials: Iterable[Trial]) -> dict[str, float]:
    """The mean score of each example over the seeds it was answered with."""
    by_id: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        for id, score in trial.scores.items():
            by_id[id].append(score)
    return {id: sum(scores) / len(scores) for id, scores in by_id.items()}


def gain(before: Sequence[Trial], after: Sequence[Trial]) -> Estimate:
    """The gain on the examples of the same units, however few; not what decides."""
    old, new = mean_by_example(before), mean_by_example(after)
    if len(old) < ENOUGH:
        return Unavailable(f"{len(old)} examples")
    first, second = (np.array([[scores[id] for id in old]]) for scores in (old, new))
    return crossed_gain(first, second).figure(0.95)


def tried(
    variant: Variant,
    before: Sequence[Trial],
    given: Mapping[str, Sequence[Trial]],
    dropped: Mapping[str, str],
    decided: Mapping[str, Adoption],
    chosen: Variant | None,
) -> TriedVariant:
    """A candidate's line of the table."""
    done = given[variant.label]
    found = decided.get(variant.label)
    if found is None:
        measured = gain(before[: len(done)], done)
        decision, reason = "dropped", dropped[variant.label]
    else:
        measured, decision, reason = found.gain, found.decision, found.reason
        if found.adopted:
            decision = "adopted" if variant is chosen else "passed over"
    return TriedVariant(
        variant.label, variant.changes, len(done), measured, decision, reason,
        total(trial.cost for trial in done),
    )  # fmt: skip


def _value_of(recipe: Recipe, factor: str) -> str:
    flat = flat_settings(recipe)
    if factor in flat:
        return label_of(flat[factor])
    inside = {
        n.removeprefix(f"{factor}."): v for n, v in flat.items() if n.startswith(f"{factor}.")
    }
    return label_of(inside)


def _value(gain: Estimate) -> float:
    return gain.value if isinstance(gain, Figure) else 0.0


def _means(series: Iterable[Sequence[float]]) -> list[float]:
    """The mean of several curves, as far as the shortest goes."""
    return [sum(values) / len(values) for values in zip(*series, strict=False)]
