"""What a run amounts to in words, with the figures behind it and what to try next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.evaluate.evidence import Figure, difference
from kilotune.evaluate.judgement import Judgement
from kilotune.evaluate.tasks import TITLES
from kilotune.recipe.schema import LoraSettings, Recipe

Name = Literal["healthy", "underfit", "overfit", "unstable", "no_signal", "unvalidated"]

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
# Where LoRA usually works best on short runs: about ten times the rate of full fine-tuning.
LORA_RATE, FULL_RATE = 5e-4, 5e-5


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to try: arguments that run as they stand, and why."""

    arguments: str
    why: str


@dataclass(frozen=True, slots=True)
class Observed:
    """What a verdict is made of: figures of generated answers, and loss curves.

    `metric` names the figure: `accuracy` for closed labels, else the task's graded one. `gain`
    is that of the tuned model over `floor` on validation. `losses` has one value a step,
    `validation_losses` one an evaluation.
    """

    metric: str
    train: Figure
    validation: Figure
    floor: str
    gain: Figure
    losses: Sequence[float]
    validation_losses: Sequence[float]

    @property
    def gap(self) -> Figure:
        """Training minus validation."""
        return difference(self.train, self.validation)

    @property
    def risen(self) -> float:
        """The last validation loss as a multiple of the lowest."""
        return self.validation_losses[-1] / min(self.validation_losses)

    @property
    def fallen(self) -> float:
        """The last tenth of the training losses as a multiple of the first."""
        first, last = _ends(self.losses)
        return _mean(last) / _mean(first)

    @property
    def fitted(self) -> bool:
        """Whether training has taken hold.

        Labels that were learnt are answered right. Free text is seldom answered word for word,
        and shows it by its loss.
        """
        if self.metric == "accuracy":
            return self.train.value >= FITTED_ACCURACY
        return self.fallen <= FITTED_LOSS_RATIO


@dataclass(frozen=True, slots=True)
class Verdict:
    """The name, one sentence, remarks that come before it, and at most three next steps."""

    name: Name
    summary: str
    remarks: tuple[str, ...]
    figures: dict[str, float]
    next_steps: tuple[NextStep, ...]


def decide(recipe: Recipe, seen: Observed, remarks: Sequence[str] = ()) -> Verdict:
    """The verdict on a run of `recipe`.

    The held-out test has no say in it: what comes next must not be chosen on the test.
    """
    name = _name(seen)
    first, last = (_mean(part) for part in _ends(seen.losses))
    figures = {
        f"train_{seen.metric}": seen.train.value,
        f"validation_{seen.metric}": seen.validation.value,
        "gap": seen.gap.value,
        "gap_low": seen.gap.low,
        "gap_high": seen.gap.high,
        "gain": seen.gain.value,
        "gain_low": seen.gain.low,
        "first_loss": first,
        "last_loss": last,
        "validation_loss_risen": seen.risen,
    }
    summary = SUMMARIES[name].format(**figures, **_words(seen))
    if name == "healthy":
        summary += HEALTHY_GAP if seen.gap.low > OVERFIT_GAP else HEALTHY
    return Verdict(name, summary, tuple(remarks), figures, NEXT_STEPS[name](recipe)[:3])


def decide_unvalidated(
    recipe: Recipe,
    metric: str,
    train: Figure,
    losses: Sequence[float],
    remarks: Sequence[str] = (),
) -> Verdict:
    """The verdict on a run that kept no example for validation: what training alone shows."""
    first, last = (_mean(part) for part in _ends(losses))
    name: Name = "unvalidated"
    if not all(math.isfinite(loss) for loss in losses) or last > DIVERGED_LOSS_RATIO * first:
        name = "unstable"
    elif metric == "accuracy":
        name = "unvalidated" if train.value >= FITTED_ACCURACY else "underfit"
    elif last > FITTED_LOSS_RATIO * first:
        name = "underfit"
    figures = {f"train_{metric}": train.value, "first_loss": first, "last_loss": last}
    summary = (
        f"{name}: {TITLES[metric]} is {train.value:.2f} on the training examples, the "
        f"loss went from {first:.3g} to {last:.3g}; no part was kept for validation"
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
        if theirs > ours:
            values = f"{TITLES[name]} {theirs:.3f} against {ours:.3f}"
            remarks.append(
                f"{text} does better than the tuned model: {values} on the held-out test"
            )
    return remarks


def _name(seen: Observed) -> Name:
    if not all(math.isfinite(loss) for loss in seen.losses) or seen.fallen > DIVERGED_LOSS_RATIO:
        return "unstable"
    if not seen.fitted:
        return "underfit"
    if seen.gain.low <= 0:
        return "no_signal"
    if seen.gap.low > OVERFIT_GAP and seen.risen > RISEN_LOSS_RATIO:
        return "overfit"
    return "healthy"


def _words(seen: Observed) -> dict[str, str]:
    """How the figures are spoken of: shares of right answers, or a mean score."""
    train, validation = seen.train.value, seen.validation.value
    if seen.metric == "accuracy":
        both = f"{train:.0%} of the training and {validation:.0%} of the validation examples"
        return {
            "scored": f"{both} are answered right",
            "unfitted": f"only {train:.0%} of its own training examples are answered right "
            f"(validation {validation:.0%})",
            "floor": seen.floor,
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
        "floor": seen.floor,
    }


SUMMARIES: dict[Name, str] = {
    "healthy": "healthy: {scored}; ",
    "underfit": "underfit: {unfitted}; the training has barely moved the model",
    "overfit": "overfit: {scored}, a gap of at least {gap_low:.0%}, and validation loss rose to "
    "{validation_loss_risen:.1f} times its lowest",
    "unstable": "unstable: the training loss went from {first_loss:.3g} to {last_loss:.3g}",
    "no_signal": "no signal: {scored}, but validation is not surely above {floor} (gain "
    "{gain:+.0%}, at least {gain_low:+.0%})",
}

HEALTHY = "what was learnt carries over"
HEALTHY_GAP = (
    "the gap did no harm, since validation loss did not rise; more examples would close it"
)


def _when_underfit(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    lora = isinstance(tune, LoraSettings)
    steps = []
    working = LORA_RATE if lora else FULL_RATE
    if tune.learning_rate < working:
        why = (
            "LoRA learns at about ten times the rate of full fine-tuning"
            if lora
            else "the rate is below what full training of a few layers usually needs"
        )
        steps.append(NextStep(f"--set tune.learning_rate={working:g}", why))
    if isinstance(tune, LoraSettings) and tune.target_modules != "all-linear":
        why = "adapters on all linear layers learn faster than on some"
        steps.append(NextStep("--set tune.target_modules=all-linear", why))
    steps.append(NextStep(f"--set tune.epochs={2 * tune.epochs:g}", "more steps"))
    return tuple(steps)


def _when_overfit(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    steps = [NextStep(f"--set tune.epochs={max(1, tune.epochs - 1):g}", "fewer passes")]
    if isinstance(tune, LoraSettings):
        if tune.layers == "all":
            steps.append(NextStep("--set tune.layers=top:8", "fewer trained layers"))
        if tune.lora_dropout == 0:
            steps.append(NextStep("--set tune.lora_dropout=0.1", "regularises the adapters"))
    return tuple(steps)


def _when_unstable(recipe: Recipe) -> tuple[NextStep, ...]:
    rate = recipe.tune.learning_rate / 5
    return (
        NextStep(f"--set tune.learning_rate={rate:g}", "smaller steps"),
        NextStep("--set tune.warmup_ratio=0.1", "a longer warm-up"),
    )


def _when_no_signal(recipe: Recipe) -> tuple[NextStep, ...]:
    return (
        NextStep("--set data.validation_fraction=0.3", "a validation part large enough to tell"),
        *_when_overfit(recipe),
    )


NEXT_STEPS = {
    "healthy": lambda recipe: (),
    "underfit": _when_underfit,
    "overfit": _when_overfit,
    "unstable": _when_unstable,
    "no_signal": _when_no_signal,
    "unvalidated": lambda recipe: (),
}


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    tenth = max(1, len(losses) // 10)
    return losses[:tenth], losses[-tenth:]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
