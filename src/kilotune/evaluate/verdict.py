"""What a run amounts to in words, with the figures behind it and what to try next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.evaluate.evidence import Figure, difference
from kilotune.evaluate.judgement import Judgement
from kilotune.recipe.schema import LoraSettings, Recipe

Name = Literal["healthy", "underfit", "overfit", "unstable", "no_signal"]

# Tuned at a rate that works, these models answer nearly all of their own training examples
# right within three epochs; below this the training has not taken hold.
FITTED_ACCURACY = 0.85
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
class Verdict:
    """The name, one sentence, remarks that come before it, and at most three next steps."""

    name: Name
    summary: str
    remarks: tuple[str, ...]
    figures: dict[str, float]
    next_steps: tuple[NextStep, ...]


def decide(
    recipe: Recipe,
    *,
    train: Figure,
    validation: Figure,
    majority: Figure,
    losses: Sequence[float],
    validation_losses: Sequence[float],
    remarks: Sequence[str] = (),
) -> Verdict:
    """The verdict from generated accuracy on training and validation examples and loss curves.

    `losses` has one value a step, `validation_losses` one an evaluation.

    The held-out test has no say in it: what comes next must not be chosen on the test.
    """
    gap = difference(train, validation)
    risen = validation_losses[-1] / min(validation_losses)
    name = _name(train, validation, majority, gap, losses, risen)
    figures = {
        "train_accuracy": train.value,
        "validation_accuracy": validation.value,
        "gap": gap.value,
        "gap_low": gap.low,
        "gap_high": gap.high,
        "majority_accuracy": majority.value,
        "first_loss": _mean(_ends(losses)[0]),
        "last_loss": _mean(_ends(losses)[1]),
        "validation_loss_risen": risen,
    }
    summary = SUMMARIES[name].format(**figures)
    if name == "healthy":
        summary += HEALTHY_GAP if gap.low > OVERFIT_GAP else HEALTHY
    return Verdict(name, summary, tuple(remarks), figures, NEXT_STEPS[name](recipe)[:3])


def remarks_on(tuned: Judgement, base: Judgement, tfidf: Judgement) -> list[str]:
    """What must be said before anything else: a cheaper system that does as well."""
    remarks = []
    for other, text in (
        (tfidf, "A bag of words (TF-IDF, logistic regression) does better than the tuned model"),
        (base, "The base model does better than the tuned model"),
    ):
        if other.accuracy.value > tuned.accuracy.value:
            values = f"accuracy {other.accuracy.value:.3f} against {tuned.accuracy.value:.3f}"
            remarks.append(f"{text}: {values} on the held-out test")
    return remarks


def _name(
    train: Figure,
    validation: Figure,
    majority: Figure,
    gap: Figure,
    losses: Sequence[float],
    risen: float,
) -> Name:
    first, last = (_mean(part) for part in _ends(losses))
    if not all(math.isfinite(loss) for loss in losses) or last > DIVERGED_LOSS_RATIO * first:
        return "unstable"
    if train.value < FITTED_ACCURACY:
        return "underfit"
    if validation.low <= majority.value:
        return "no_signal"
    if gap.low > OVERFIT_GAP and risen > RISEN_LOSS_RATIO:
        return "overfit"
    return "healthy"


SUMMARIES: dict[Name, str] = {
    "healthy": "healthy: {train_accuracy:.0%} of the training and {validation_accuracy:.0%} of "
    "the validation examples are answered right; ",
    "underfit": "underfit: only {train_accuracy:.0%} of its own training examples are answered "
    "right (validation {validation_accuracy:.0%}); the training has barely moved the model",
    "overfit": "overfit: {train_accuracy:.0%} of the training but only {validation_accuracy:.0%} "
    "of the validation examples are answered right, a gap of at least {gap_low:.0%}, and "
    "validation loss rose to {validation_loss_risen:.1f} times its lowest",
    "unstable": "unstable: the training loss went from {first_loss:.3g} to {last_loss:.3g}",
    "no_signal": "no signal: {train_accuracy:.0%} of the training examples are answered right, "
    "but validation ({validation_accuracy:.0%}) is not surely above always answering the "
    "commonest label ({majority_accuracy:.0%})",
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
}


def _ends(losses: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    tenth = max(1, len(losses) // 10)
    return losses[:tenth], losses[-tenth:]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
