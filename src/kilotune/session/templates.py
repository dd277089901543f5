"""The chat template and the limits of a model, and examples as both have them. No weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kilotune.data.example import Example
from kilotune.data.finding import errors_first
from kilotune.generation.answer import Prompting, answer_room
from kilotune.generation.decoding import generation_config
from kilotune.models.positions import position_limit, vocabulary
from kilotune.models.source import Source
from kilotune.models.vision import Vision
from kilotune.recipe.schema import Recipe
from kilotune.rendering.limits import UNLIMITED, Limits
from kilotune.rendering.probe import chat_template
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording


def rendered_and_asked(
    recipe: Recipe,
    template: ChatTemplate,
    words: Wording,
    labels: Sequence[str],
    examples: Sequence[Example],
    source: Source,
    held: Sequence[Example] = (),
) -> Rendered:
    """`examples` as the model of `source` would be trained on them, and be asked them.

    Of what cannot be asked, where texts and answers together may be too long for the model, there
    are findings too, and of `held`, which are asked alone.
    """
    data, limits = recipe.data, limits_at(source)
    rendered = render_examples(
        template,
        words,
        examples,
        max_length=data.max_length,
        train_on=data.train_on,
        limits=limits,
    )
    if not rendered.examples:
        return rendered
    generation = generation_config(
        recipe.decoding,
        answer_tokens=answer_room(template, words, labels, rendered.examples),
        stop_ids=[template.stop_id],
        pad_id=template.tokenizer.pad_token_id,
    )
    prompting = Prompting(template, words, generation, data.max_length, recipe.seed, limits)
    ids = {example.id for example in rendered.examples} if prompting.tight(labels) else set()
    asked = [example for example in examples if example.id in ids]
    refused = prompting.refusals([*asked, *held], labels)
    return replace(rendered, findings=tuple(errors_first([*rendered.findings, *refused])))


def limits_at(source: Source) -> Limits:
    """The limits of the model of `source`; none are known where there is a tokenizer alone."""
    try:
        return limits_of(source.config)
    except (OSError, ValueError):
        return UNLIMITED


def limits_of(config: Any) -> Limits:
    """The limits of a model of `config`."""
    return Limits(position_limit(config), vocabulary(config) or None)


def load_template(source: Source, vision: Vision | None = None) -> ChatTemplate:
    """The tokenizer of `source` with the chat template that its settings ask for.

    The tokenizer takes it on, so that it is saved with what is tuned. Where there is `vision`,
    images get as many tokens as it makes of them, and its own template comes first.
    """
    tokenizer, settings = source.tokenizer(), source.settings
    if vision is not None and vision.chat_template is not None:
        tokenizer.chat_template = vision.chat_template
    template = chat_template(
        tokenizer,
        settings.chat_template,
        settings.template_arguments,
        model_stops=source.stop_ids(),
        pictures=vision,
    )
    tokenizer.chat_template = template.source
    return template
