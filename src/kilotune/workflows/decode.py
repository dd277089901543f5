"""How a tuned model's answers are best generated, found out on validation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import GenerationConfig

from kilotune.data.example import Example, Task, references
from kilotune.data.files.writers import written_atomically
from kilotune.evaluation.decoding_race import DecodingChoice, choose, title
from kilotune.evaluation.judgement import scores
from kilotune.evaluation.task_metrics import reader
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import decoding_settings
from kilotune.models.identity import ADAPTER_WEIGHTS
from kilotune.models.pretrained import Model
from kilotune.models.tuned_weights import ADAPTER, tuned_folder
from kilotune.preparation.prepare import prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import DecodingSettings
from kilotune.runs import record
from kilotune.runs.outcomes import DecodingDocument, JudgementDocument
from kilotune.runs.record import RunFolder
from kilotune.session.loading import open_tuned
from kilotune.workflows.resuming import check_same_data


@dataclass(frozen=True, slots=True)
class DecodingTask:
    """A model, how it is asked, and the examples with their task and labels."""

    model: Model
    prompting: Prompting
    task: Task
    labels: tuple[str, ...]
    examples: tuple[Example, ...]


def decode(
    run: str | Path,
    progress: Progress | None = None,
    *,
    trust_code: bool = False,
    moved: Sequence[str] = (),
) -> DecodingChoice:
    """Choose how the finished run in `run` decodes, by its validation examples, and keep it.

    The choice is written to the tuned folder's `generation_config.json`, which prediction, chat and
    export read, and all that led to it to `decoding.json`. `moved` says where files and models lie
    now, as `data.train=FILE`. Raises KilotuneError when the data have changed since the run, and
    for code that its recipe names unless `trust_code`.
    """
    progress = progress or Silent()
    folder = RunFolder(Path(run))
    recipe = folder.read_recipe(trust_code=trust_code, moved=moved)
    folder.check_finished()
    prepared = prepare(recipe, Silent())
    check_same_data(folder, prepared)
    with folder.writing():
        folder.note_moves(moved)
        progress.stage("Loading the model")
        pictured, adapter = bool(prepared.pictured), _developed(folder, progress)
        model, prompting = open_tuned(
            folder.path, recipe, prepared.labels, pictured=pictured, adapter=adapter
        )
        progress.stage("Trying ways of decoding on validation")
        asked = DecodingTask(
            model, prompting, prepared.task, prepared.labels, tuple(prepared.parts.validation)
        )
        choice = search(asked, progress)
        # The record last: where it is, the choice is used.
        _replace_config(tuned_folder(folder.path), prompting.decoding(choice.chosen).generation)
        save_choice(folder, choice)
    return choice


def _developed(folder: RunFolder, progress: Progress) -> Path | None:
    """The adapter that has not seen validation, where the final model has; None for the final one.

    Where there is none, its checkpoint gone or whole layers tuned, that is said.
    """
    judged = folder.read(JudgementDocument)
    if judged.refit is None:
        return None
    checkpoint = folder / record.CHECKPOINTS / f"checkpoint-{judged.tuning.best_step}"
    alone = tuned_folder(folder.path).name == ADAPTER
    if alone and (checkpoint / ADAPTER_WEIGHTS).is_file():
        return checkpoint
    progress.say(
        "warning: the final model is asked, which has learnt from validation; there is no adapter "
        f"of the one before it in {record.CHECKPOINTS}/{checkpoint.name}"
    )
    return None


def search(asked: DecodingTask, progress: Progress) -> DecodingChoice:
    """The choice among ways of decoding, by the task's metric for single examples."""
    by_id = {example.id: example for example in asked.examples}
    read = reader(asked.task, asked.labels, asked.prompting.wording)

    def ask(settings: DecodingSettings, ids: Sequence[str], seed: int) -> Sequence[float]:
        prompting = replace(asked.prompting.decoding(settings), seed=seed)
        examples = [by_id[id] for id in ids]
        said = prompting.answers(asked.model, examples, progress, title(settings))
        predictions = [read(answer.text) for answer in said]
        return scores(asked.task, references(examples), predictions)

    limits = decoding_settings(asked.prompting.generation)
    return choose(list(by_id), limits, ask, asked.prompting.seed)


def save_choice(folder: RunFolder, choice: DecodingChoice) -> None:
    """Write `decoding.json`."""
    folder.write(DecodingDocument(choice=choice))


def _replace_config(tuned: Path, config: GenerationConfig) -> None:
    with written_atomically(tuned / "generation_config.json") as part:
        config.save_pretrained(tuned, config_file_name=part.name)
