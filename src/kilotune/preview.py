"""What training would see, before any training: the tokenizer is loaded, the weights are not."""

from dataclasses import dataclass

from kilotune.data.finding import Finding, errors_first
from kilotune.data.normalise import Dataset
from kilotune.models.load import generation_stops, load_tokenizer, locate_tokenizer
from kilotune.models.qwen import limit_at
from kilotune.models.vision import Vision, load_vision
from kilotune.preparation import reading
from kilotune.recipe.schema import ModelSettings, Recipe
from kilotune.render.probe import chat_template
from kilotune.render.renderings import Rendered, render_examples
from kilotune.render.template import ChatTemplate
from kilotune.render.wording import wording


@dataclass(frozen=True, slots=True)
class Preview:
    """A file as it would be trained on, and everything that was found on the way."""

    dataset: Dataset
    template: ChatTemplate
    rendered: Rendered
    findings: tuple[Finding, ...]


def preview(recipe: Recipe) -> Preview:
    """Read `recipe.data.train` and render all of it for `recipe.model`; nothing is written.

    Raises KilotuneError for a file or a tokenizer that cannot be used.
    """
    data = recipe.data
    dataset = reading(data).load(data.train, "data")
    labels = sorted({example.label for example in dataset.examples if example.label})
    words = wording(data.system, data.question, labels, data.label_wording)
    source = locate_tokenizer(recipe.model)
    template = load_template(source, recipe.model, load_vision(source, recipe.model, needed=False))
    rendered = render_examples(
        template,
        words,
        dataset.examples,
        max_length=data.max_length,
        train_on=data.train_on,
        limit=limit_at(source),
    )
    found = errors_first([*dataset.findings, *rendered.findings])
    return Preview(dataset, template, rendered, tuple(found))


def load_template(
    source: str, settings: ModelSettings, vision: Vision | None = None
) -> ChatTemplate:
    """The tokenizer at `source` with the chat template that the recipe asks for.

    The tokenizer takes it on, so that it is saved with what is tuned. Where there is `vision`,
    images get as many tokens as it makes of them, and its own template comes first.
    """
    tokenizer = load_tokenizer(source, settings)
    if vision is not None and vision.chat_template is not None:
        tokenizer.chat_template = vision.chat_template
    template = chat_template(
        tokenizer,
        settings.chat_template,
        settings.template_arguments,
        model_stops=generation_stops(source),
        pictures=vision,
    )
    tokenizer.chat_template = template.source
    return template
