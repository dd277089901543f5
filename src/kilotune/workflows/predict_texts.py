"""Answers to texts in memory, by a finished run whose model is kept for the next call."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from kilotune.data.example import Example, Message, Origin
from kilotune.errors import KilotuneError
from kilotune.models.quiet import quiet
from kilotune.recipe.functions import MODEL
from kilotune.runs.documents import DataDocument
from kilotune.runs.record import RunFolder
from kilotune.session.loading import open_tuned
from kilotune.session.simpler_answers import COLUMN, PROBABILITY, Answer, Answerer, simpler_system
from kilotune.workflows.predict import CHUNK, Tuned


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run answers to one text: "" where its answer named no label or held no JSON.

    `probability` is that of a closed label among the labels, in [0, 1].
    """

    text: str
    answer: str
    probability: float | None = None

    def __repr__(self) -> str:
        sure = "" if self.probability is None else f" ({self.probability:.2f})"
        return f"{self.answer or 'no answer'}{sure}"


@quiet()
def predict_texts(
    run: Path, texts: Sequence[str], *, system: str = "tuned", trust_code: bool = False
) -> list[Prediction]:
    """The answer of the finished run in `run` to each of `texts`, in their order.

    `system` may name a simpler one that the run has fitted. Raises KilotuneError for texts that
    cannot be put to the model, by their numbers from 0, and nothing is then answered.
    """
    if isinstance(texts, str):
        raise KilotuneError("one text, not a list of them", fix="Write it as [text]")
    examples = [
        Example(f"text {number}", (Message("user", text),), Origin("texts", number))
        for number, text in enumerate(texts)
    ]
    asked = _opened(run, system, trust_code)
    if refused := asked.refusals(examples):
        raise KilotuneError("; ".join(map(str, refused)), where=str(run))
    answers = {}
    for start in range(0, len(examples), CHUNK):
        answers.update(asked.answers(examples[start : start + CHUNK], start))
    return [_prediction(e.text, answers[e.id]) for e in examples]


def _prediction(text: str, found: Answer) -> Prediction:
    sure = found.get(PROBABILITY)
    return Prediction(text, str(found[COLUMN]), None if sure is None else float(sure))


@lru_cache(maxsize=1)
def _opened(run: Path, system: str, trust_code: bool) -> Answerer:
    folder = RunFolder(run)
    recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
    folder.check_finished()
    data = folder.read(DataDocument)
    if system == "tuned":
        opened = open_tuned(run, recipe, data.labels, pictured=False)
        return Tuned(*opened, data.task, data.labels)
    return simpler_system(system, folder, recipe, data, pictured=False)
