"""The learning rate that a model wants, where the recipe leaves it open.

LoRA wants about ten times the rate of full fine-tuning. Thinking Machines Lab (Schulman 2025, "LoRA
Without Regret", and its cookbook) fitted it as 5e-4 (2000 / width)^p: for Llamas p is 0.781, for
Qwens 0.0775, so next to nothing. Of a Llama the rate at one width was measured
(docs/concepts/auto.md), and the power taken from there; of other kinds nothing was.
"""

from kilotune.models.source import Source
from kilotune.recipe.schema import BitFitSettings, LoraSettings, Method, Recipe

# SmolLM2-135M's width, and the rate that was measured there.
WIDTH, MEASURED, POWER = 576, 2e-3, -0.781
# Of other kinds. And of a model that writes freely or chats: it is also used for what it could do
# before, and keeps far more of that at this rate.
FREELY, USUAL = ("generate", "chat"), 5e-4
BIASES, WEIGHTS = 5e-4, 5e-5


def with_learning_rate(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with a number for its learning rate, so that a resumed run has the same.

    Raises OSError and ValueError as `source.config` does.
    """
    if recipe.tune.learning_rate != "auto":
        return recipe
    config = source.config.get_text_config()
    rate = learning_rate(recipe.tune, config.model_type, int(config.hidden_size), recipe.data.task)
    return recipe.with_settings({"tune.learning_rate": rate})


def learning_rate(settings: Method, kind: str, width: int, task: str) -> float:
    """That of a way of tuning a `kind` of model with hidden states of `width` on a `task`.

    To two digits. `kind` is the configuration's `model_type`.
    """
    if not isinstance(settings, LoraSettings):
        return BIASES if isinstance(settings, BitFitSettings) else WEIGHTS
    if kind != "llama":
        return USUAL
    # Nothing narrower was measured.
    rate = float(f"{MEASURED * (max(width, WIDTH) / WIDTH) ** POWER:.1e}")
    return min(rate, USUAL) if task in FREELY else rate
