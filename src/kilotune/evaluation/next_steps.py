"""What to try next after each verdict: arguments that run as they stand."""

from collections.abc import Callable
from dataclasses import dataclass

from kilotune.messages.sentences import Phrase, phrase, say
from kilotune.recipe.schema import LoraSettings, Recipe

# Lower rates than these are too low on short runs, whatever the model's width: LoRA wants about ten
# times that of full fine-tuning.
LORA_RATE, FULL_RATE = 2e-4, 5e-5
LONG_WARMUP = 0.1


@dataclass(frozen=True, slots=True)
class NextStep:
    """One thing to try: arguments that run as they stand, and why."""

    arguments: str
    reason: Phrase

    @property
    def why(self) -> str:
        """The reason in words."""
        return say(self.reason)


def _step(arguments: str, reason: str) -> NextStep:
    return NextStep(arguments, phrase(reason))


def _when_underfit(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    lora = isinstance(tune, LoraSettings)
    steps = []
    if tune.rate < (LORA_RATE if lora else FULL_RATE):
        why = "lora-rate" if lora else "full-rate"
        steps.append(_step("--set tune.learning_rate=auto", why))
    if isinstance(tune, LoraSettings) and tune.target_modules != "all-linear":
        why = "all-linear"
        steps.append(_step("--set tune.target_modules=all-linear", why))
    steps.append(_step(f"--set tune.epochs={2 * tune.passes:g}", "more-steps"))
    return tuple(steps)


def _when_overfit(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    steps = []
    if tune.passes > 1:
        steps.append(_step(f"--set tune.epochs={max(1, tune.passes - 1):g}", "fewer-epochs"))
    if isinstance(tune, LoraSettings):
        if tune.layers == "all":
            steps.append(_step("--set tune.layers=top:8", "fewer-layers"))
        if tune.lora_dropout == 0:
            steps.append(_step("--set tune.lora_dropout=0.1", "dropout"))
    return tuple(steps)


def _when_unstable(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    steps = [_step(f"--set tune.learning_rate={tune.rate / 5:g}", "smaller-rate")]
    if tune.warmup_ratio < LONG_WARMUP:
        steps.append(_step(f"--set tune.warmup_ratio={LONG_WARMUP}", "longer-warmup"))
    return tuple(steps)


def _when_no_signal(recipe: Recipe) -> tuple[NextStep, ...]:
    larger = _larger_validation(recipe, 0.3, "more-validation")
    return (*larger, *_when_overfit(recipe))


def _when_template_fault(recipe: Recipe) -> tuple[NextStep, ...]:
    model, decoding = recipe.model, recipe.decoding
    steps = []
    if model.chat_template == "auto":
        why = "plain-template"
        steps.append(_step("--set model.chat_template=plain", why))
    else:
        steps.append(_step("--set model.chat_template=auto", "own-template"))
    if decoding.max_new_tokens != "auto":
        why = "longer-answers"
        steps.append(_step("--set decoding.max_new_tokens=auto", why))
    if decoding.temperature > 0:
        steps.append(_step("--set decoding.temperature=0", "greedy"))
    return tuple(steps)


def _when_data_fault(recipe: Recipe) -> tuple[NextStep, ...]:
    tune = recipe.tune
    if tune.passes > 1:
        return (_step("--set tune.epochs=1", "one-epoch"),)
    return _when_overfit(recipe)


def _when_unavailable(recipe: Recipe) -> tuple[NextStep, ...]:
    return _larger_validation(recipe, 0.4, "more-to-judge")


def _larger_validation(recipe: Recipe, fraction: float, why: str) -> tuple[NextStep, ...]:
    """None where the part is a file of its own, or as large already."""
    data = recipe.data
    if data.validation or data.split or data.validation_fraction >= fraction:
        return ()
    return (_step(f"--set data.validation_fraction={fraction:g}", why),)


NEXT_STEPS: dict[str, Callable[[Recipe], tuple[NextStep, ...]]] = {
    "healthy": lambda recipe: (),
    "underfit": _when_underfit,
    "overfit": _when_overfit,
    "unstable": _when_unstable,
    "no_signal": _when_no_signal,
    "template_fault": _when_template_fault,
    "data_fault": _when_data_fault,
    "unavailable": _when_unavailable,
    "unvalidated": lambda recipe: (),
}
