"""The learning rate that a model wants, where the recipe leaves it open.

LoRA wants about ten times the rate of full fine-tuning, and the wider a model the smaller a rate:
for Llamas by a power of its width (Schulman and Thinking Machines Lab 2025, "LoRA Without Regret").
The rate at the width of SmolLM2-135M was measured (docs/concepts/auto.md); at 4,096 the rule then
gives what that work found there.
"""

from kilotune.models.source import Source
from kilotune.recipe.schema import BitFitSettings, LoraSettings, Method, Recipe

WIDTH, RATE, POWER = 576, 2e-3, -0.78
# A model that writes freely, or chats, is also used for what it could do before, and keeps far more
# of that at this rate.
FREELY, OF_FREE_TEXT = ("generate", "chat"), 5e-4
BIASES, WEIGHTS = 5e-4, 5e-5


def with_learning_rate(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with a number for its learning rate, so that a resumed run has the same.

    Raises OSError and ValueError as `source.config` does.
    """
    if recipe.tune.learning_rate != "auto":
        return recipe
    width = int(source.config.get_text_config().hidden_size)
    rate = learning_rate(recipe.tune, width, recipe.data.task)
    return recipe.with_settings({"tune.learning_rate": rate})


def learning_rate(settings: Method, width: int, task: str) -> float:
    """That of a way of tuning a model with hidden states of `width` on a `task`, to two digits."""
    if isinstance(settings, LoraSettings):
        # Nothing narrower was measured.
        rate = float(f"{RATE * (max(width, WIDTH) / WIDTH) ** POWER:.1e}")
        return min(rate, OF_FREE_TEXT) if task in FREELY else rate
    return BIASES if isinstance(settings, BitFitSettings) else WEIGHTS
