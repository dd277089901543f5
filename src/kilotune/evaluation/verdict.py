"""What a run amounts to in words, with the figures behind it and what to try next."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kilotune.data.files.writers import Number
from kilotune.evaluation.evidence import Estimate, Figure, Unavailable, difference
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.label_errors import Contradicted
from kilotune.evaluation.next_steps import NEXT_STEPS, NextStep
from kilotune.evaluation.task_metrics import TITLES
from kilotune.messages.sentences import Phrase, phrase, say
from kilotune.recipe.schema import Recipe

Name = Literal[
    "healthy", "underfit", "overfit", "unstable", "no_signal", "template_fault", "data_fault",
    "unavailable", "unvalidated",
]  # fmt: skip
Confidence = Literal["sure", "likely"]

# Tuned at a rate that works, these models answer nearly all of their own training examples
# right within three epochs; below this the training has not taken hold.
FITTED_ACCURACY = 0.85
# A loss that did not fall by a fifth has learnt little beyond what the template looks like.
FITTED_LOSS_RATIO = 0.8
# A model of any size knows a few hundred examples by heart and may be better for it: a gap is
# overfitting where its interval lies above the first, *and* validation loss rose by the second
# from its lowest, so that the later steps did harm.
# Of labels the loss rises with a model's confidence while its answers still gain: there the answers
# must have got worse, or the gap be so wide that examples were learnt by heart.
OVERFIT_GAP, BY_HEART_GAP = 0.05, 0.25
RISEN_LOSS_RATIO = 1.1
# The last tenth of the steps against the first: a loss that rose has diverged.
DIVERGED_LOSS_RATIO = 1.1
# Steps whose loss lies so far above the first ones' have thrown away what was there: more than one
# in fifty of them, as a single hard batch may be. Losses of batches of eight differ by less.
SPIKE_LOSS_RATIO, SPIKES_SHARE = 1.5, 0.02
# A loss that ended below so much of where it began has got over its spikes.
SETTLED = 0.1
# Of these many: in a long run the first tenth would hold the fall itself.
FIRST_STEPS = 3
# The last tenth's gradients against the first's. At the start they are as large as they get;
# clipping hides them from the weights, not from the log.
GROWN_GRADIENT_RATIO = 20
# Of a run that came to nothing: its loss climbed, after it had fallen, by so much of where it began
# (means of a twentieth of the steps), or its gradients died while the loss stayed. Too small steps
# do neither.
STRAYED_LOSS = 0.25
WINDOW_SHARE = 0.05
# A tuned model that was taught to end and to be read does both nearly always. Where the trained
# loss fell to this share, or lower, and still half of the answers do not, what is generated is
# not what was trained.
LEARNT_LOSS_RATIO, FAULTY_ANSWERS = 0.5, 0.5
# Below so many nats a token the trained one is likelier than all others together, on average, and
# greedy decoding says it. An answer from a closed set has no other way to be right.
SAID_LOSS = math.log(2)
# Of texts with two labels one is always wrong: a tenth of them costs five points at least.
CONFLICTING_SHARE = 0.1
# A loss or gradient of nothing, where one is divided by it.
TINY = 1e-12
# A loss of so much of what it was has, in whole per cent, not fallen.
UNFALLEN = 0.995


@dataclass(frozen=True, slots=True)
class Observed:
    """What a verdict is made of: figures of generated answers, and loss curves.

    `metric` names the figure: `accuracy` for closed labels, else the task's graded one. `gain`
    is that of the tuned model on validation, of closed labels over always answering the
    commonest, else over the base model, as `over_base` is of both.
    `losses` and `gradients` (their norms) have one value a step, `validation_losses` one an
    evaluation. `unread` and `unended` are the shares of the tuned model's validation answers that
    could not be read as an answer of the task, and that did not end by themselves; `conflicting`
    is the share of the examples whose text stands there with another label too; `contradicted`
    how often the tuned model finds another label likelier than the given one.

    Where `folds` is not 0, `validation`, `gain` and `over_base` are of as many folds' answers
    together, `held_out` of them, each by a model that had not seen the example. `worsened`: answers
    to validation surely got worse behind the step whose weights were kept.
    """

    metric: str
    train: Estimate
    validation: Estimate
    gain: Estimate
    over_base: Estimate
    losses: Sequence[float]
    validation_losses: Sequence[float]
    gradients: Sequence[float] = ()
    unread: float = 0.0
    unended: float = 0.0
    conflicting: float = 0.0
    contradicted: Contradicted | None = None
    folds: int = 0
    held_out: int = 0
    worsened: bool = False

    @property
    def risen(self) -> float:
        """The last validation loss as a multiple of the lowest; 1 where none is known."""
        losses = [loss for loss in self.validation_losses if math.isfinite(loss)]
        return losses[-1] / max(TINY, min(losses)) if losses else 1.0

    @property
    def fallen(self) -> float:
        """The last tenth of the training losses as a multiple of the first."""
        return _ratio(self.losses)

    @property
    def grown(self) -> float:
        """The last tenth of the gradients' norms as a multiple of the first."""
        return _ratio(self.gradients) if self.gradients else 1.0

    @property
    def strayed(self) -> float:
        """The highest climb of the losses after a fall, as a multiple of the first."""
        size = max(FIRST_STEPS, math.ceil(WINDOW_SHARE * len(self.losses)))
        starts = range(len(self.losses) - size + 1)
        means = [_mean(self.losses[start : start + size]) for start in starts]
        lowest, climb = math.inf, 0.0
        for mean in means:
            lowest = min(lowest, mean)
            climb = max(climb, mean - lowest)
        return climb / max(TINY, means[0]) if means else 0.0

    @property
    def spikes(self) -> int:
        """The later steps whose loss lies far above that of the first few."""
        first, later = self.losses[:FIRST_STEPS], self.losses[FIRST_STEPS:]
        return sum(loss > SPIKE_LOSS_RATIO * _mean(first) for loss in later)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """The figures of a verdict where there are enough examples for all of them."""

    train: Figure
    validation: Figure
    gain: Figure

    @property
    def gap(self) -> Figure:
        """Training minus validation."""
        return difference(self.train, self.validation)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The name, what it is `said` by, remarks that come before it, and at most three next steps.

    `doubt` is which figure that decided does not lie on one side of its threshold with its whole
    interval.
    """

    name: Name
    said: Phrase
    remarks: tuple[Phrase, ...]
    figures: dict[str, Number]
    next_steps: tuple[NextStep, ...]
    doubt: Phrase | None = None

    @property
    def summary(self) -> str:
        """The verdict in one sentence."""
        return say(self.said)

    def sentences(self) -> list[str]:
        """All that it says. Raises ValueError where a value of a sentence is missing."""
        said = [*self.remarks, self.said, *(step.reason for step in self.next_steps)]
        return [say(one) for one in (*said, *filter(None, [self.doubt]))]

    def with_sentences(self) -> dict[str, Any]:
        """Its fields, with its sentences as texts."""
        return {
            **asdict(self),
            "summary": self.summary,
            "remarks": [say(remark) for remark in self.remarks],
            "next_steps": [{"arguments": s.arguments, "why": s.why} for s in self.next_steps],
            "confidence": self.confidence,
            "doubt": say(self.doubt) if self.doubt else "",
        }

    @property
    def confidence(self) -> Confidence:
        """`sure` without any doubt."""
        return "likely" if self.doubt else "sure"


def decide(recipe: Recipe, seen: Observed, remarks: Sequence[Phrase] = ()) -> Verdict:
    """The verdict on a run of `recipe`.

    The held-out test has no say in it: what comes next must not be chosen on the test.
    """
    judged = _judged(seen)
    name = _name(seen, judged)
    figures = _figures(seen, judged)
    said = _said(name, seen, judged)
    steps = NEXT_STEPS[name](recipe)[:3]
    return Verdict(name, said, tuple(remarks), figures, steps, _doubt(name, seen, judged))


def _judged(seen: Observed) -> JudgedRun | None:
    figures = seen.train, seen.validation, seen.gain
    train, validation, gain = figures
    if isinstance(train, Figure) and isinstance(validation, Figure) and isinstance(gain, Figure):
        return JudgedRun(train, validation, gain)
    return None


def _figures(seen: Observed, judged: JudgedRun | None) -> dict[str, float]:
    first, last = (_mean(part) for part in _ends(seen.losses))
    figures = {
        "first_loss": first,
        "last_loss": last,
        "validation_loss_risen": seen.risen,
        "loss_spikes": seen.spikes,
        "loss_strayed": seen.strayed,
        "gradients_grown": seen.grown,
        "unread": seen.unread,
        "unended": seen.unended,
        "conflicting": seen.conflicting,
    }
    if seen.contradicted is not None:
        figures["contradicted_surest"] = seen.contradicted.surest.value
        figures["contradicted_others"] = seen.contradicted.others.value
    if judged is None:
        return figures
    if seen.folds:
        figures |= {"folds": seen.folds, "held_out": seen.held_out}
    return {
        f"train_{seen.metric}": judged.train.value,
        f"validation_{seen.metric}": judged.validation.value,
        "gap": judged.gap.value,
        "gap_low": judged.gap.low,
        "gap_high": judged.gap.high,
        "gain": judged.gain.value,
        "gain_low": judged.gain.low,
        **figures,
    }


def decide_unvalidated(
    recipe: Recipe,
    metric: str,
    train: Estimate,
    losses: Sequence[float],
    remarks: Sequence[Phrase] = (),
) -> Verdict:
    """The verdict on a run that kept no example for validation: what training alone shows."""
    first, last = (_mean(part) for part in _ends(losses))
    value = train.value
    name: Name = "unvalidated"
    if not all(math.isfinite(loss) for loss in losses) or last > DIVERGED_LOSS_RATIO * first:
        name = "unstable"
    elif metric != "accuracy":
        name = "underfit" if last > FITTED_LOSS_RATIO * first else "unvalidated"
    elif value is not None and value < FITTED_ACCURACY:
        name = "underfit"
    figures = {"first_loss": first, "last_loss": last}
    scored = phrase("train-unavailable", metric=TITLES[metric])
    if value is not None:
        figures[f"train_{metric}"] = value
        scored = phrase("train-scored", metric=TITLES[metric], value=value)
    losses_said = {"first": first, "last": last}
    said = phrase("without-validation", verdict=name, scored=scored, **losses_said)
    return Verdict(name, said, tuple(remarks), figures, NEXT_STEPS[name](recipe)[:3])


def remarks_on(judged: Mapping[str, Judgement], gains: Mapping[str, Estimate]) -> list[Phrase]:
    """What must be said before anything else: a simpler system that does as well.

    `judged` are all systems by name, the tuned one among them, the simplest first; `gains` those of
    the tuned one over each. As well does the best of the others where the tuned one is not surely
    better.
    """
    tuned = judged["tuned"].figures
    # Of closed labels accuracy decides; free text is seldom the same word for word.
    metric = "accuracy" if "accuracy" in tuned else list(tuned)[-1]
    values = {name: one.figures[metric].value for name, one in judged.items()}
    known = {name: value for name, value in values.items() if value is not None}
    ours = known.pop("tuned", None)
    if ours is None or not known:
        return []
    best = max(known, key=known.__getitem__)
    figures = {"metric": TITLES[metric], "theirs": known[best], "ours": ours}
    closed = "" if metric == "accuracy" else "-open"
    named = {
        "system": phrase(f"system-{best}{closed if best in ('majority', 'tfidf') else ''}"),
        "use": phrase(f"use-{best}"),
    }
    if known[best] > ours:
        return [phrase("system-better", **named, **figures)]
    gain = gains[best]
    if isinstance(gain, Figure) and gain.low <= 0:
        return [phrase("system-as-good", **named, **figures, gain=_interval(gain))]
    return []


def _name(seen: Observed, judged: JudgedRun | None) -> Name:
    if _unstable(seen):
        return "unstable"
    if judged is None:
        return "unavailable"
    name = "template_fault" if _unlike_trained(seen) else _learnt(seen, judged)
    if name in ("template_fault", "underfit") and _strayed(seen):
        return "unstable"
    if name not in ("template_fault", "healthy") and seen.conflicting >= CONFLICTING_SHARE:
        return "data_fault"
    if name == "underfit" and _mislabelled(seen, judged):
        return "data_fault"
    return name


def _unlike_trained(seen: Observed) -> bool:
    """Whether what was trained was learnt, and still is not what is generated."""
    learnt = seen.fallen <= LEARNT_LOSS_RATIO
    if seen.metric == "accuracy":
        learnt = learnt and _mean(_ends(seen.losses)[1]) < SAID_LOSS
    return learnt and max(seen.unread, seen.unended) >= FAULTY_ANSWERS


def _mislabelled(seen: Observed, judged: JudgedRun) -> bool:
    """Whether labels are wrong whatever the text: the surest predictions miss as many as others.

    Only of a model that has learnt something, and not of one that knows its examples by heart.
    Where examples are hard instead, or learning has not come far, the surest are mostly right.
    """
    against = seen.contradicted
    return against is not None and against.alike and _suspected(seen, judged)


def _suspected(seen: Observed, judged: JudgedRun) -> bool:
    """Whether a model that has learnt something is surest of what many labels deny."""
    against = seen.contradicted
    return against is not None and judged.gain.low > 0 and against.surest.low >= CONFLICTING_SHARE


def _unstable(seen: Observed) -> bool:
    numbers = (*seen.losses, *seen.gradients)
    return (
        not all(math.isfinite(number) for number in numbers)
        or seen.fallen > DIVERGED_LOSS_RATIO
        or (seen.fallen > SETTLED and seen.spikes > max(1, SPIKES_SHARE * len(seen.losses)))
        or seen.grown > GROWN_GRADIENT_RATIO
    )


def _strayed(seen: Observed) -> bool:
    died = seen.grown < 1 / GROWN_GRADIENT_RATIO and seen.fallen > FITTED_LOSS_RATIO
    return died or seen.strayed > STRAYED_LOSS


def _learnt(seen: Observed, judged: JudgedRun) -> Name:
    # Labels that were learnt are answered right. Free text is seldom answered word for word, and
    # shows by its loss that training has taken hold.
    closed = seen.metric == "accuracy"
    if (closed and judged.train.value < FITTED_ACCURACY) or (
        not closed and seen.fallen > FITTED_LOSS_RATIO
    ):
        return "underfit"
    over_base = seen.over_base.value
    if judged.gain.low <= 0 or (over_base is not None and over_base <= 0):
        return "no_signal"
    harmed = not closed or seen.worsened or judged.gap.low > BY_HEART_GAP
    if harmed and judged.gap.low > OVERFIT_GAP and seen.risen > RISEN_LOSS_RATIO:
        return "overfit"
    return "healthy"


def _doubt(name: Name, seen: Observed, judged: JudgedRun | None) -> Phrase | None:
    """Which interval of a figure that decided holds its threshold; None where none does."""
    if judged is None or name in ("unstable", "template_fault"):
        return None
    if name == "data_fault":
        return None if seen.conflicting >= CONFLICTING_SHARE else phrase("labels-left-open")
    if name == "underfit" and seen.contradicted is not None and _suspected(seen, judged):
        return phrase("labels-suspected", share=seen.contradicted.surest.value)
    if seen.metric == "accuracy" and judged.train.low < FITTED_ACCURACY <= judged.train.high:
        return phrase("near-fitted", accuracy=_interval(judged.train), fitted=FITTED_ACCURACY)
    if name == "no_signal" and judged.gain.low <= 0 and judged.gain.high > OVERFIT_GAP:
        code = "gain-unshown-folds" if seen.folds else "gain-unshown"
        return phrase(code, gain=_interval(judged.gain))
    if name == "healthy" and seen.risen > RISEN_LOSS_RATIO and judged.gap.high > OVERFIT_GAP:
        return phrase("gap-unshown", gap=_interval(judged.gap), limit=OVERFIT_GAP)
    return None


def _interval(figure: Figure) -> Phrase:
    return phrase("interval", value=figure.value, low=figure.low, high=figure.high)


def _said(name: Name, seen: Observed, judged: JudgedRun | None) -> Phrase:
    """The verdict's sentence: its name's, with the figures that decided."""
    first, last = (_mean(part) for part in _ends(seen.losses))
    if name == "unstable":
        if not math.isfinite(first):  # it broke at once: say where it began
            first = next(filter(math.isfinite, seen.losses), first)
        return phrase(name, first=first, last=last, how=_unsteady(seen))
    if judged is None:
        estimates = (seen.validation, seen.train)
        few = next((e.reason for e in estimates if isinstance(e, Unavailable)), "")
        return phrase(name, few=few)
    scores = {"train": judged.train.value, "validation": judged.validation.value}
    where = {"folds": seen.folds, "held_out": seen.held_out} if seen.folds else {}
    by = "-folds" if seen.folds else ""
    closed = seen.metric == "accuracy"
    moved = phrase("barely-moved")
    if seen.fallen <= FITTED_LOSS_RATIO:
        moved = phrase("moved-too-little", fallen=seen.fallen)
    if name == "underfit" and closed:
        return phrase(name, unfitted=phrase(f"answered-wrong{by}", **scores, **where), moved=moved)
    title = TITLES[seen.metric]
    if name == "underfit":
        loss = phrase(
            "loss-fell-to" if seen.fallen < UNFALLEN else "loss-unfallen", fallen=seen.fallen
        )
        unfitted = phrase(f"unfitted{by}", loss=loss, metric=title, **scores, **where)
        return phrase(name, unfitted=unfitted, moved=moved)
    if name == "template_fault":
        return phrase(name, first=first, last=last, faults=_faults(seen))
    code = "answered-right" if closed else "scored"
    scored = phrase(f"{code}{by}", metric=title, **scores, **where)
    if name == "data_fault":
        return phrase(name, scored=scored, labels=_wrong_labels(seen))
    if name == "overfit":
        return phrase(name, scored=scored, gap=judged.gap.low, risen=seen.risen)
    if name == "no_signal" and judged.gain.low > 0:
        return phrase(f"no-signal-over-base{by}", scored=scored, gain=seen.over_base.value)
    if name == "no_signal":
        floor = phrase("majority-floor" if closed else "base-floor")
        gain = {"gain": judged.gain.value, "least": judged.gain.low}
        unshown = judged.gain.value > 0 and judged.gain.high > OVERFIT_GAP
        code = "no-signal-shown" if unshown else name
        return phrase(f"{code}{by}", scored=scored, floor=floor, **gain)
    outlook = "carries-over"
    if judged.gap.low > OVERFIT_GAP:
        risen = seen.risen > RISEN_LOSS_RATIO
        outlook = "gap-harmless-to-answers" if risen else "gap-harmless"
    return phrase(name, scored=scored, outlook=phrase(outlook))


def _unsteady(seen: Observed) -> Phrase | str:
    """Why a run is unstable whose loss fell all the same."""
    if not all(math.isfinite(number) for number in (*seen.losses, *seen.gradients)):
        return phrase("not-finite")
    if seen.fallen > DIVERGED_LOSS_RATIO:
        return ""
    if seen.grown > GROWN_GRADIENT_RATIO:
        return phrase("gradients-grew", times=seen.grown)
    if seen.spikes:
        return phrase("loss-spiked", steps=seen.spikes)
    if seen.strayed > STRAYED_LOSS:
        return phrase("loss-climbed", share=seen.strayed)
    return phrase("gradients-died", share=seen.grown)


def _wrong_labels(seen: Observed) -> Phrase:
    """What is wrong with the labels."""
    if seen.conflicting >= CONFLICTING_SHARE or seen.contradicted is None:
        return phrase("labels-conflict", share=seen.conflicting)
    surest, others = seen.contradicted.surest.value, seen.contradicted.others.value
    return phrase("labels-contradicted", surest=surest, others=others)


def _faults(seen: Observed) -> Phrase:
    """What is wrong with the answers as texts, the commonest first."""
    shares = {"answers-unread": seen.unread, "answers-unended": seen.unended}
    said = [
        phrase(code, share=share)
        for code, share in sorted(shares.items(), key=lambda way: -way[1])
        if share >= FAULTY_ANSWERS
    ]
    return said[0] if len(said) == 1 else phrase("both", one=said[0], other=said[1])


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    tenth = max(1, len(losses) // 10)
    return losses[:tenth], losses[-tenth:]


def _ratio(values: Sequence[float]) -> float:
    first, last = (_mean(part) for part in _ends(values))
    return last / max(TINY, first)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
