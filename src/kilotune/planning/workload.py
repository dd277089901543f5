"""How much a run has to do: its examples, counted in tokens."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from kilotune.data.example import Example, Image
from kilotune.data.finding import stop_on_errors
from kilotune.generation.prefix import common_prefix
from kilotune.models.source import Source
from kilotune.models.vision import load_vision
from kilotune.preparation.prepare import Prepared
from kilotune.session.templates import load_template, rendered_and_asked

# Without a tokenizer: English and Chinese alike take about a token for four bytes of UTF-8, and a
# chat template about this many around its messages.
BYTES_A_TOKEN, TEMPLATE_TOKENS = 4, 16


@dataclass(frozen=True, slots=True)
class Work:
    """How much there is to do. Lengths in tokens; `counted` says that a tokenizer counted them.

    `length` is the mean of an example with its answer, `longest` the maximum, `shared` what all
    begin with, `answer` the mean of the tokens that are trained. Of `scored` examples the labels
    are scored, where they are closed. `images` are those of training and validation, each once,
    and `image_tokens` what they are to the model, or 0 where no processor is there to say it.
    """

    train: int
    validation: int
    test: int
    length: float
    longest: int
    shared: int
    answer: float
    counted: bool
    scored: int = 0
    images: int = 0
    image_tokens: int = 0


def measure_work(prepared: Prepared, source: Source) -> Work:
    """Count the tokens of a run's examples, or estimate them where there is no tokenizer.

    Raises KilotuneError for examples that the model of `source` cannot be trained on or asked.
    """
    parts = prepared.parts
    examples = (*parts.train, *parts.validation)
    counts = _count(prepared, source, examples)
    counted = counts is not None
    counts = counts or _estimate(prepared, examples)
    return Work(
        train=len(parts.train),
        validation=len(parts.validation),
        test=len(parts.test),
        length=sum(counts.lengths) / len(counts.lengths),
        longest=max(counts.lengths),
        shared=counts.shared,
        answer=sum(counts.answers) / len(counts.answers),
        counted=counted,
        scored=sum(map(len, parts.named().values())) if prepared.task == "classify" else 0,
        images=len(_images(examples)),
        image_tokens=counts.image_tokens,
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Tokens of each example and of its answer, of what all begin with, and of their images."""

    lengths: list[int]
    answers: list[int]
    shared: int
    image_tokens: int = 0


def _images(examples: Sequence[Example]) -> set[Image]:
    return {image for example in examples for image in example.images}


def _count(prepared: Prepared, source: Source, examples: Sequence[Example]) -> _Counts | None:
    if not source.has_tokenizer:
        return None  # a config.json alone is enough for a plan
    vision = load_vision(source, needed=bool(prepared.pictured))
    seen = rendered_and_asked(
        prepared.recipe,
        load_template(source, vision),
        prepared.wording,
        prepared.labels,
        examples,
        source,
        held=prepared.parts.test,
    )
    stop_on_errors(seen.findings, source.settings.name)
    rendered = seen.renderings
    prompts: list[Sequence[int]] = [r.token_ids[: r.prompt_length] for r in rendered]
    own = 0
    if vision is not None:
        pairs = zip(prompts, rendered, strict=True)
        prompts = [vision.told_apart(ids, r.images) for ids, r in pairs]
        own = sum(vision.count(image) for image in {i for r in rendered for i in r.images})
    return _Counts(
        lengths=[len(r.token_ids) for r in rendered],
        answers=[sum(r.label_mask) for r in rendered],
        shared=len(common_prefix(prompts)),
        image_tokens=own,
    )


def _estimate(prepared: Prepared, examples: Sequence[Example]) -> _Counts:
    def tokens(text: str) -> int:
        return math.ceil(len(text.encode("utf-8")) / BYTES_A_TOKEN)

    limit = prepared.recipe.data.max_length
    worded = [prepared.wording.apply(example) for example in examples]
    answers = [tokens(example.messages[-1].text) + 1 for example in worded]
    texts = ["".join(message.text for message in example.messages) for example in worded]
    lengths = [min(tokens(text) + TEMPLATE_TOKENS, limit) for text in texts]
    alike = tokens(os.path.commonprefix(texts))  # noqa: RUF071 (characters are meant)
    return _Counts(lengths, answers, alike + TEMPLATE_TOKENS // 2 if alike else 0)
