"""Answers to new rows by a simpler system that a run has fitted, in place of its tuned model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, Message, Task
from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import LinearClassifier, copier
from kilotune.evaluation.task_metrics import reader
from kilotune.generation.answer import Prompting
from kilotune.generation.embedding import load_embedder
from kilotune.generation.hidden_states import StatesOf, hidden_states
from kilotune.models.pretrained import Model
from kilotune.progress import Silent
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.fitted_baselines import PROBE, Pooling, load_baselines
from kilotune.runs.record import RunFolder
from kilotune.session.baseline_systems import behind_turns, few_shot
from kilotune.session.loading import open_base

COLUMN, PROBABILITY = "prediction", "probability"
# By the names that `--with` takes.
SIMPLER = ("tfidf", "encoder", "states", "few-shot")

# The least cosine of one encoder's embeddings of one text, on machines that round otherwise.
SAME_ENCODER = 0.99

Answer = dict[str, str | float | None]


class Answerer(Protocol):
    """Whatever answers examples."""

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        """Those that cannot be asked, by what keeps them from it."""
        ...

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        """What is added to the row of each, by its id; `start` is the number of the first."""
        ...


def simpler_system(
    name: str, folder: RunFolder, recipe: Recipe, data: DataDocument, *, pictured: bool
) -> Answerer:
    """The system called `name`, one of SIMPLER, as the run in `folder` fitted it.

    `pictured`: there are images to be seen. Raises KilotuneError where it was not fitted, or where
    what it rests on is not as it was.
    """
    if name not in SIMPLER:
        raise KilotuneError(f"no system is called '{name}'", fix=f"Choose: {', '.join(SIMPLER)}")
    fitted = load_baselines(folder)
    if name == "tfidf" and fitted.copied:
        return _Copied(copier(*fitted.copied))
    if name == "tfidf" and fitted.tfidf:
        words = fitted.tfidf
        return _Linear(lambda e: words.vectorizer.transform(_texts(e)), words.classifier)
    if name == "encoder" and fitted.encoder:
        return _of_encoder(fitted.encoder, recipe)
    if name == "states" and fitted.states:
        base = open_base(folder, recipe, data.labels, pictured=pictured)
        return _of_states(fitted.states, *base)
    if name == "few-shot" and fitted.shown is not None:
        model, prompting = open_base(folder, recipe, data.labels, pictured=pictured)
        return _FewShot(model, prompting, fitted.shown, data.task, data.labels)
    there = {
        "tfidf": fitted.tfidf or fitted.copied,
        "encoder": fitted.encoder,
        "states": fitted.states,
        "few-shot": fitted.shown is not None,
    }
    raise KilotuneError(
        f"the run has kept nothing of the system '{name}' to answer by",
        where=str(folder.path),
        fix=f"It has: {', '.join(other for other, fit in there.items() if fit) or 'none'}",
    )


def _texts(examples: Sequence[Example]) -> list[str]:
    return [example.text for example in examples]


@dataclass(frozen=True, slots=True)
class _Copied:
    """The answer of the known text that is most like the one that is asked."""

    copied: Callable[[Sequence[str]], list[str]]

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        return []

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        said = self.copied(_texts(examples))
        return {e.id: {COLUMN: answer} for e, answer in zip(examples, said, strict=True)}


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear classifier of features."""

    features: Callable[[Sequence[Example]], Any]
    classifier: LinearClassifier
    prompting: Prompting | None = None

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        return self.prompting.refusals(examples) if self.prompting else []

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        labels = self.classifier.labels
        return {
            example.id: {COLUMN: labels[row.argmax()], PROBABILITY: round(float(row.max()), 6)}
            for example, row in zip(
                examples, self.classifier.probabilities(self.features(examples)), strict=True
            )
        }


def _of_encoder(
    fitted: tuple[str, NDArray[np.float32], LinearClassifier], recipe: Recipe
) -> _Linear:
    """Raises KilotuneError where the encoder is not the one that the classifier was fitted to."""
    place, probe, classifier = fitted
    place = recipe.judge.encoder or place  # which may have moved with its project
    embed = load_embedder(place)
    now = embed([PROBE])[0].numpy()
    if now.shape != probe.shape or float(now @ probe) < SAME_ENCODER:
        raise KilotuneError(
            "not the sentence encoder of the run",
            where=place,
            fix="Put that one back, or answer with another system",
        )
    return _Linear(lambda examples: embed(_texts(examples)).numpy(), classifier)


def _of_states(
    fitted: tuple[int, Pooling, int, LinearClassifier], model: Model, prompting: Prompting
) -> _Linear:
    layer, pooling, skip, classifier = fitted
    pad_id = prompting.template.tokenizer.pad_token_id

    def features(examples: Sequence[Example]) -> Any:
        prompts = prompting.prompts(examples)
        place: StatesOf = layer, pooling
        wanted = {"skip": skip, "pad_id": pad_id, "progress": Silent()}
        return hidden_states(model, prompts, [place], **wanted)[place]

    return _Linear(features, classifier, prompting)


@dataclass(frozen=True, slots=True)
class _FewShot:
    """The base model, with examples before each question."""

    model: Model
    prompting: Prompting
    shown: tuple[Message, ...]
    task: Task
    labels: tuple[str, ...]

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        refused = self.prompting.refusals(examples)
        rows = {row for found in refused for row in found.rows}
        fitting = [example for example in examples if example.id not in rows]
        return [*refused, *few_shot(self.prompting).refusals(self._behind(fitting))]

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        asked = few_shot(replace(self.prompting, seed=self.prompting.seed + start))
        said = asked.answers(self.model, self._behind(examples), Silent(), "answering")
        read = reader(self.task, self.labels, self.prompting.wording)
        more: Answer = {PROBABILITY: None} if self.labels else {}
        return {
            example.id: {COLUMN: read(one.text), **more}
            for example, one in zip(examples, said, strict=True)
        }

    def _behind(self, examples: Sequence[Example]) -> list[Example]:
        return [behind_turns(self.shown, self.prompting.worded(e)) for e in examples]
