"""How many positions and tokens a model has, by its configuration."""

from collections.abc import Mapping
from typing import Any


def position_limit(config: Any) -> int | None:
    """The most tokens that a model of `config` can be given; None where there is no such number.

    Beyond it learned positions end, and rotary ones were never trained; of those that are scaled
    it is the length they are scaled to.
    """
    text = config.get_text_config(decoder=True)
    if getattr(text, "alibi", False):
        return None
    most = getattr(text, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        return None
    # Layers of several kinds are scaled apart: what one kind cannot do the model cannot.
    return max(most, min(_scaled(rope, most) for rope in _ropes(text)))


def longest_text(model: Any, tokenizer: Any) -> int:
    """The most tokens that `model` can be given of a text, by what it and `tokenizer` know."""
    limit = position_limit(model.config)
    known = int(tokenizer.model_max_length)  # a huge number where it is not
    return known if limit is None else min(limit, known)


def vocabulary(config: Any) -> int:
    """How many tokens a model of `config` knows; 0 where it does not say."""
    return int(getattr(config.get_text_config(decoder=True), "vocab_size", None) or 0)


def _ropes(text: Any) -> list[Mapping[str, Any]]:
    """The parameters of rotary positions: one set, or one for each kind of layer."""
    given = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    nested = [each for each in given.values() if isinstance(each, Mapping)]
    return nested or [given]


def _scaled(rope: Mapping[str, Any], most: int) -> int:
    """The length that the positions are scaled to; `most` may be the one before scaling."""
    factor = rope.get("factor") or 1.0
    return int((rope.get("original_max_position_embeddings") or most) * factor)
