"""Answers to texts in memory, by a finished run whose model is kept for the next call."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kilotune.data.example import Example, Message, Origin
from kilotune.errors import KilotuneError, some
from kilotune.evaluation.task_metrics import UNREADABLE
from kilotune.models.quiet import quiet
from kilotune.models.tuned_weights import tuned_folder
from kilotune.recipe.functions import MODEL
from kilotune.recipe.schema import Recipe
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

    Empty texts have an empty answer. Of a run on several joined columns a text is what those came
    to, each behind its name, as `kilotune render` shows it.
    `system` may name a simpler one that the run has fitted. Raises KilotuneError for texts that
    cannot be put to the model, by their numbers from 0, and nothing is then answered.
    """
    if isinstance(texts, str):
        raise KilotuneError("one text, not a list of them", fix="Write it as [text]")
    if odd := [str(number) for number, text in enumerate(texts) if not isinstance(text, str)]:
        raise KilotuneError(
            f"no text (numbers {some(odd)})", where=str(run), fix="Leave these out, or give texts"
        )
    asked, system_message = _opened(run.resolve(), system, trust_code)
    examples = [
        Example(f"text {number}", (*system_message, Message("user", text)), Origin("texts", number))
        for number, text in enumerate(texts)
        if text.strip()
    ]
    if refused := asked.refusals(examples):
        raise KilotuneError(
            "; ".join(map(str, refused)), where=str(run), fix="Leave these out, or shorten them"
        )
    answers: dict[str, Answer] = {}
    for start in range(0, len(examples), CHUNK):
        answers.update(asked.answers(examples[start : start + CHUNK], start))
    nothing: Answer = {COLUMN: UNREADABLE}
    return [_prediction(t, answers.get(f"text {n}", nothing)) for n, t in enumerate(texts)]


def _prediction(text: str, found: Answer) -> Prediction:
    sure = found.get(PROBABILITY)
    return Prediction(text, str(found[COLUMN]), None if sure is None else float(sure))


# The model that was asked last, and the system message that all examples of its run brought along.
_KEPT: dict[tuple[Path, str, bool, int], tuple[Answerer, tuple[Message, ...]]] = {}


def _opened(run: Path, system: str, trust_code: bool) -> tuple[Answerer, tuple[Message, ...]]:
    folder = RunFolder(run)
    folder.check_finished()
    decoding = tuned_folder(run) / "generation_config.json"
    key = (run, system, trust_code, decoding.stat().st_mtime_ns if decoding.exists() else 0)
    if key not in _KEPT:
        _KEPT.clear()  # the old model goes before the new one comes
        recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
        data = folder.read(DataDocument)
        _KEPT[key] = _answerer(folder, recipe, data, system), _system_message(data, run)
    return _KEPT[key]


def _answerer(folder: RunFolder, recipe: Recipe, data: DataDocument, system: str) -> Answerer:
    if system == "tuned":
        opened = open_tuned(folder.path, recipe, data.labels, pictured=False)
        return Tuned(*opened, data.task, data.labels)
    return simpler_system(system, folder, recipe, data, pictured=False)


def _system_message(data: DataDocument, run: Path) -> tuple[Message, ...]:
    """What the run's own examples began with, as a message."""
    own = data.own_system
    if own is not None and own.text is None:
        raise KilotuneError(
            "the run's examples have system messages of their own, which differ",
            where=str(run),
            fix="Answer a file that has them: kilotune.predict(run, file, out)",
        )
    return (Message("system", own.text),) if own is not None and own.text else ()
