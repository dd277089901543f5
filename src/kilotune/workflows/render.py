"""What training would see, before any training: the tokenizer is loaded, the weights are not."""

from dataclasses import dataclass

from kilotune.data.finding import Finding, errors_first
from kilotune.data.normalise import Dataset, load_dataset
from kilotune.models.source import locate_tokenizer
from kilotune.models.vision import load_vision
from kilotune.preparation.prepare import reading
from kilotune.recipe.schema import Recipe
from kilotune.rendering.renderings import Rendered
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import wording
from kilotune.session.templates import load_template, rendered_and_asked


@dataclass(frozen=True, slots=True)
class Preview:
    """A file as it would be trained on, and everything that was found on the way."""

    dataset: Dataset
    template: ChatTemplate
    rendered: Rendered
    findings: tuple[Finding, ...]


def render(recipe: Recipe) -> Preview:
    """Read `recipe.data.train` and render all of it for `recipe.model`; nothing is written.

    Raises KilotuneError for a file or a tokenizer that cannot be used.
    """
    data = recipe.data
    dataset = load_dataset(data.train, reading(data))
    labels = sorted({example.label for example in dataset.examples if example.label})
    words = wording(data.system, data.question, labels, data.label_wording)
    source = locate_tokenizer(recipe.model)
    template = load_template(source, load_vision(source, needed=False))
    rendered = rendered_and_asked(recipe, template, words, labels, dataset.examples, source)
    found = errors_first([*dataset.findings, *rendered.findings])
    return Preview(dataset, template, rendered, tuple(found))
