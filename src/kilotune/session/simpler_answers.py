"""Answers to new rows by a simpler system that a run has fitted, in place of its tuned model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kilotune.data.example import Example, Message, Task
from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import LinearClassifier, nearest
from kilotune.evaluation.task_metrics import reader
from kilotune.generation.answer import Prompting
from kilotune.generation.embedding import load_embedder
from kilotune.generation.hidden_states import hidden_states
from kilotune.models.pretrained import Model
from kilotune.progress import Silent
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.fitted_baselines import FittedBaselines, load_baselines
from kilotune.runs.record import RunFolder
from kilotune.session.baseline_systems import behind_turns, few_shot
from kilotune.session.loading import open_base

COLUMN, PROBABILITY = "prediction", "probability"
# By the names that `--with` takes.
SIMPLER = ("tfidf", "encoder", "states", "few-shot")

Answer = dict[str, str | float | None]


class Answerer(Protocol):
    """Whatever answers examples."""

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        """Those that cannot be asked, by what keeps them from it."""
        ...

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        """What is added to the row of each, by its id; `start` is the number of the first."""
        ...


def simpler_system(name: str, folder: RunFolder, recipe: Recipe, data: DataDocument) -> Answerer:
    """The system called `name`, one of SIMPLER, as the run in `folder` fitted it.

    Raises KilotuneError where it was not fitted, or where what it rests on is not as it was.
    """
    if name not in SIMPLER:
        raise KilotuneError(f"no system is called '{name}'", fix=f"Choose: {', '.join(SIMPLER)}")
    fitted = load_baselines(folder)
    if name == "tfidf" and fitted.copied:
        return _Copied(*fitted.copied)
    if name == "tfidf" and fitted.tfidf:
        words = fitted.tfidf
        return _Linear(lambda e: words.vectorizer.transform(_texts(e)), words.classifier)
    if name == "encoder" and fitted.encoder:
        place, classifier = fitted.encoder
        embed = load_embedder(place)
        return _Linear(lambda e: embed(_texts(e)).numpy(), classifier)
    if name == "states" and fitted.states:
        return _of_states(fitted, *open_base(folder, recipe, data.labels))
    if name == "few-shot" and fitted.shown is not None:
        model, prompting = open_base(folder, recipe, data.labels)
        return _FewShot(model, prompting, fitted.shown, data.task, data.labels)
    there = {
        "tfidf": fitted.tfidf or fitted.copied,
        "encoder": fitted.encoder,
        "states": fitted.states,
        "few-shot": fitted.shown is not None,
    }
    raise KilotuneError(
        f"the run did not ask the system '{name}'",
        where=str(folder.path),
        fix=f"It has: {', '.join(other for other, fit in there.items() if fit) or 'none'}",
    )


def _texts(examples: Sequence[Example]) -> list[str]:
    return [example.text for example in examples]


@dataclass(frozen=True, slots=True)
class _Copied:
    """The answer of the known text that is most like the one that is asked."""

    texts: list[str]
    known: list[str]

    def refusals(self, examples: Sequence[Example]) -> list[Finding]:
        return []

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        said = nearest(self.texts, self.known, _texts(examples))
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


def _of_states(fitted: FittedBaselines, model: Model, prompting: Prompting) -> _Linear:
    assert fitted.states is not None
    (layer, pooling), classifier = fitted.states
    pad_id = prompting.template.tokenizer.pad_token_id

    def features(examples: Sequence[Example]) -> Any:
        prompts = prompting.prompts(examples)
        found = hidden_states(model, prompts, [(layer, pooling)], pad_id, Silent())
        return found[layer, pooling]

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
        return self.prompting.refusals(examples)

    def answers(self, examples: Sequence[Example], start: int) -> dict[str, Answer]:
        behind = [behind_turns(self.shown, self.prompting.worded(e)) for e in examples]
        said = few_shot(self.prompting).answers(self.model, behind, Silent(), "answering")
        read = reader(self.task, self.labels, self.prompting.wording)
        return {e.id: {COLUMN: read(one.text)} for e, one in zip(examples, said, strict=True)}
