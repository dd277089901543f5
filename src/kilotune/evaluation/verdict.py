"""What a run amounts to in words, with the figures behind it and what to try next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.data.files.writers import Number
from kilotune.evaluation.evidence import Estimate, Figure, Unavailable, difference
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.label_errors import Contradicted
from kilotune.evaluation.next_steps import NEXT_STEPS, NextStep
from kilotune.evaluation.task_metrics import TITLES
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
OVERFIT_GAP = 0.05
RISEN_LOSS_RATIO = 1.1
# The last tenth of the steps against the first: a loss that rose has diverged.
DIVERGED_LOSS_RATIO = 1.1
# Steps whose loss lies so far above the first ones' have thrown away what was there: more than one
# in fifty of them, as a single hard batch may be. Losses of batches of eight differ by less.
SPIKE_LOSS_RATIO, SPIKES_SHARE = 1.5, 0.02
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


@dataclass(frozen=True, slots=True)
class Observed:
    """What a verdict is made of: figures of generated answers, and loss curves.

    `metric` names the figure: `accuracy` for closed labels, else the task's graded one. `gain`
    is that of the tuned model over `floor` on validation, `over_base` that over the base model.
    `losses` and `gradients` (their norms) have one value a step, `validation_losses` one an
    evaluation. `unread` and `unended` are the shares of the tuned model's validation answers that
    could not be read as an answer of the task, and that did not end by themselves; `conflicting`
    is the share of the examples whose text stands there with another label too; `contradicted`
    how often the tuned model finds another label likelier than the given one.
    """

    metric: str
    train: Estimate
    validation: Estimate
    floor: str
    gain: Estimate
    over_base: Estimate
    losses: Sequence[float]
    validation_losses: Sequence[float]
    gradients: Sequence[float] = ()
    unread: float = 0.0
    unended: float = 0.0
    conflicting: float = 0.0
    contradicted: Contradicted | None = None

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
    """The name, one sentence, remarks that come before it, and at most three next steps.

    `confidence` is `sure` where the figures that decided lie on one side of their thresholds with
    their whole intervals; else `doubt` says which does not.
    """

    name: Name
    summary: str
    remarks: tuple[str, ...]
    figures: dict[str, Number]
    next_steps: tuple[NextStep, ...]
    confidence: Confidence = "sure"
    doubt: str = ""


def decide(recipe: Recipe, seen: Observed, remarks: Sequence[str] = ()) -> Verdict:
    """The verdict on a run of `recipe`.

    The held-out test has no say in it: what comes next must not be chosen on the test.
    """
    judged = _judged(seen)
    name = _name(seen, judged)
    figures = _figures(seen, judged)
    summary = SUMMARIES[name].format(**figures, **_words(seen))
    if name == "healthy" and judged is not None:
        summary += HEALTHY_GAP if judged.gap.low > OVERFIT_GAP else HEALTHY
    doubt = _doubt(name, seen, judged)
    return Verdict(
        name,
        summary,
        tuple(remarks),
        figures,
        NEXT_STEPS[name](recipe)[:3],
        "likely" if doubt else "sure",
        doubt,
    )


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
    remarks: Sequence[str] = (),
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
    said = f"{TITLES[metric]} on the training examples is unavailable"
    if value is not None:
        figures[f"train_{metric}"] = value
        said = f"{TITLES[metric]} is {value:.2f} on the training examples"
    summary = (
        f"{name}: {said}, the loss went from {first:.3g} to {last:.3g}; no part was kept for "
        "validation"
    )
    return Verdict(name, summary, tuple(remarks), figures, NEXT_STEPS[name](recipe)[:3])


def remarks_on(tuned: Judgement, base: Judgement, tfidf: Judgement) -> list[str]:
    """What must be said before anything else: a cheaper system that does as well."""
    remarks = []
    words = "A bag of words (TF-IDF, logistic regression)"
    # Of closed labels accuracy decides; free text is seldom the same word for word.
    name = "accuracy" if "accuracy" in tuned.figures else list(tuned.figures)[-1]
    if name != "accuracy":
        words = "Copying the answer of the most similar training example (TF-IDF)"
    for other, text in ((tfidf, words), (base, "The base model")):
        theirs, ours = other.figures[name].value, tuned.figures[name].value
        if theirs is not None and ours is not None and theirs > ours:
            values = f"{TITLES[name]} {theirs:.3f} against {ours:.3f}"
            remarks.append(
                f"{text} does better than the tuned model: {values} on the held-out test"
            )
    return remarks


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
        or seen.spikes > max(1, SPIKES_SHARE * len(seen.losses))
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
    if judged.gap.low > OVERFIT_GAP and seen.risen > RISEN_LOSS_RATIO:
        return "overfit"
    return "healthy"


def _doubt(name: Name, seen: Observed, judged: JudgedRun | None) -> str:
    """Which interval of a figure that decided holds its threshold, in words; empty for none."""
    if judged is None or name in ("unstable", "template_fault"):
        return ""
    if name == "data_fault":
        return "" if seen.conflicting >= CONFLICTING_SHARE else UNDECIDED
    if name == "underfit" and seen.contradicted is not None and _suspected(seen, judged):
        return SUSPECTED.format(share=seen.contradicted.surest.value)
    if seen.metric == "accuracy" and judged.train.low < FITTED_ACCURACY <= judged.train.high:
        return f"training accuracy {judged.train} is near {FITTED_ACCURACY:.2f}"
    if name == "no_signal" and judged.gain.high > OVERFIT_GAP:
        return f"the gain {judged.gain} may be there, and the validation part too small to show it"
    if name == "healthy" and seen.risen > RISEN_LOSS_RATIO and judged.gap.high > OVERFIT_GAP:
        return f"validation loss rose, and the gap {judged.gap} may be more than {OVERFIT_GAP:.2f}"
    return ""


def _words(seen: Observed) -> dict[str, str]:
    """How the figures are spoken of: shares of right answers, or a mean score."""
    train, validation = seen.train.value, seen.validation.value
    few = next((f.reason for f in (seen.validation, seen.train) if isinstance(f, Unavailable)), "")
    known = {
        "few": few,
        "floor": seen.floor,
        "answers": _answers(seen),
        "unsteady": _unsteady(seen),
        "mislabelled": _contradictions(seen),
    }
    if train is None or validation is None:
        return known
    if seen.metric == "accuracy":
        both = f"{train:.0%} of the training and {validation:.0%} of the validation examples"
        return {
            "scored": f"{both} are answered right",
            "unfitted": f"only {train:.0%} of its own training examples are answered right "
            f"(validation {validation:.0%})",
            **known,
        }
    title = TITLES[seen.metric]
    fell = "training loss did not fall"
    if seen.fallen < 1:
        fell = f"training loss fell only to {seen.fallen:.0%} of where it began"
    return {
        "scored": f"{title} is {train:.2f} on the training and {validation:.2f} on the "
        "validation examples",
        "unfitted": f"{fell} ({title} {train:.2f} on training, {validation:.2f} on validation "
        "examples)",
        **known,
    }


def _unsteady(seen: Observed) -> str:
    """Why a run is unstable whose loss fell all the same."""
    if not all(math.isfinite(number) for number in (*seen.losses, *seen.gradients)):
        return ", some of the losses or gradients are not finite"
    if seen.fallen > DIVERGED_LOSS_RATIO:
        return ""
    if seen.grown > GROWN_GRADIENT_RATIO:
        return f", its gradients grew to {seen.grown:.0f} times their size"
    if seen.spikes:
        return f", {seen.spikes} steps far above where it began"
    if seen.strayed > STRAYED_LOSS:
        return f", and climbed on the way by {seen.strayed:.0%} of that"
    return f", and its gradients fell to {seen.grown:.1%} of their size"


def _contradictions(seen: Observed) -> str:
    """What is wrong with the labels."""
    if seen.conflicting >= CONFLICTING_SHARE or seen.contradicted is None:
        return (
            f"and {seen.conflicting:.0%} of the examples have a text that stands there with "
            "another label too; kilotune check names their rows"
        )
    return (
        f"and where the tuned model is surest, {seen.contradicted.surest.value:.0%} of the labels "
        f"are others, as often as where it is not ({seen.contradicted.others.value:.0%}): they "
        "are wrong, or do not follow from the texts; the findings list the rows"
    )


def _answers(seen: Observed) -> str:
    """What is wrong with the answers as texts, the commonest first."""
    ways = [(seen.unread, "cannot be read"), (seen.unended, "do not end by themselves")]
    faulty = sorted((way for way in ways if way[0] >= FAULTY_ANSWERS), reverse=True)
    return " and ".join(f"{share:.0%} {what}" for share, what in faulty)


SUMMARIES: dict[Name, str] = {
    "healthy": "healthy: {scored}; ",
    "underfit": "underfit: {unfitted}; the training has barely moved the model",
    "overfit": "overfit: {scored}, a gap of at least {gap_low:.0%}, and validation loss rose to "
    "{validation_loss_risen:.1f} times its lowest",
    "unstable": "unstable: the training loss went from {first_loss:.3g} to "
    "{last_loss:.3g}{unsteady}",
    "no_signal": "no signal: {scored}, but validation is not surely above {floor} (gain "
    "{gain:+.0%}, at least {gain_low:+.0%})",
    "template_fault": "template fault: the training loss fell from {first_loss:.3g} to "
    "{last_loss:.3g}, but of the generated answers {answers}: what is generated is not what was "
    "trained; look at both with kilotune render",
    "data_fault": "data fault: {scored}, {mislabelled}",
    "unavailable": "unavailable: too few examples to judge by ({few})",
}

SUSPECTED = (
    "where the tuned model is surest, {share:.0%} of the labels are others: they may be wrong, see "
    "the findings"
)
UNDECIDED = "labels that the texts leave open look like wrong ones"
HEALTHY = "what was learnt carries over"
HEALTHY_GAP = (
    "the gap did no harm, since validation loss did not rise; more examples would close it"
)


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    tenth = max(1, len(losses) // 10)
    return losses[:tenth], losses[-tenth:]


def _ratio(values: Sequence[float]) -> float:
    first, last = (_mean(part) for part in _ends(values))
    return last / max(TINY, first)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
