"""The whole job, stage by stage: from a labelled file to a judged adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from kilotune import distributed
from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Estimate, PairedTest
from kilotune.evaluation.forgetting import Forgetting
from kilotune.evaluation.judgement import Judgement
from kilotune.evaluation.preference import Preference
from kilotune.evaluation.verdict import Verdict
from kilotune.exports import describe
from kilotune.models.sharding import of_the_leader
from kilotune.models.tuned_weights import tuned_folder
from kilotune.preparation.prepare import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.advice import advised
from kilotune.recipe.schema import Recipe
from kilotune.reports.build import build_report
from kilotune.reports.view import system_title
from kilotune.runs import record, trackers
from kilotune.runs.outcomes import (
    JudgementDocument,
    PseudoLabels,
    PseudoLabelsDocument,
    VerdictDocument,
)
from kilotune.runs.record import RunFolder, create_run
from kilotune.self_training.rounds import joined, pseudo_labelled
from kilotune.session.loading import base_identity, check_base
from kilotune.session.training_augmentation import augmented, check_record, write_record
from kilotune.workflows.preflight import Ready, preflight
from kilotune.workflows.resuming import begin, begun, check_unchanged, kept
from kilotune.workflows.stages import run_stages

if TYPE_CHECKING:
    from kilotune.workflows.predict_texts import Prediction


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A finished run: its folder, what it found, where its weights and its report are."""

    folder: Path
    verdict: Verdict
    judgements: tuple[Judgement, ...]
    tuned_against_base: PairedTest
    forgetting: Forgetting | None
    preference: Preference | None
    weights: Path
    report: Path
    pseudo_labels: PseudoLabels | None = None

    @property
    def test(self) -> Mapping[str, Estimate]:
        """The tuned model's figures on the held-out test by name: `run.test["accuracy"]`."""
        return next(one.figures for one in self.judgements if one.name == "tuned")

    def predict(
        self, texts: Sequence[str], *, system: str = "tuned", trust_code: bool = False
    ) -> "list[Prediction]":
        """The answer to each of `texts`; the model stays in memory for the next call.

        `system` may be a simpler one that the run has fitted: tfidf, encoder, states, few-shot.
        Raises KilotuneError for texts that cannot be put to the model.
        """
        from kilotune.workflows.predict_texts import predict_texts

        return predict_texts(self.folder, texts, system=system, trust_code=trust_code)

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {figure}" for name, figure in self.test.items())
        return f"Run {self.folder}: {self.verdict.name.replace('_', ' ')}, {figures} on the test"

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, and every system's figures on the test."""
        names = [*self.test]
        head = "".join(f"<th>{escape(name)}</th>" for name in ("", *names))
        rows = "".join(
            f"<tr><td>{escape(system_title(one.name, one.figures))}</td>"
            + "".join(f"<td>{escape(str(one.figures[name]))}</td>" for name in names)
            + "</tr>"
            for one in self.judgements
        )
        said = f"<p>{escape(self.verdict.summary)}</p><table><tr>{head}</tr>{rows}</table>"
        return f"{said}<p>{escape(str(self.report))}</p>"


def run(recipe: Recipe, out: str | Path | None = None, progress: Progress | None = None) -> Run:
    """Do the whole job of `recipe` in a new folder (`out`, else one under `runs/`).

    Nothing is written before the data and the model's name are known to be usable. Raises
    KilotuneError for unusable input; after Ctrl-C during training a checkpoint is there to
    `resume` from.
    """
    progress = progress or Silent()
    out = Path(out) if out is not None else None
    if out is not None and distributed.leads():
        record.check_new(out)
    return start(prepare(recipe, progress), out, progress)


def start(prepared: Prepared, out: Path | None = None, progress: Progress | None = None) -> Run:
    """The rest of `run`, of data that were read and checked before."""
    progress = progress or Silent()
    ready = preflight(prepared, progress)
    prepared = ready.prepared
    more, added = augmented(clean(prepared, progress), progress)
    base = base_identity(ready.source)
    folder = _new_folder(out, prepared.recipe.data.train.stem)
    with folder.writing(), kept(folder, progress):
        folder.write_recipe(prepared.recipe)
        write_record(folder, added)
        begin(folder, more, base)
        return _go_on(ready, more, folder, progress)


def resume(
    path: str | Path,
    progress: Progress | None = None,
    *,
    trust_code: bool = False,
    moved: Sequence[str] = (),
) -> Run:
    """Go on with the stopped run in `path`, from its last whole checkpoint.

    Of one that is judged only the report is made. `moved` says where files and models lie now, as
    `data.train=FILE`. Raises KilotuneError when it is finished already, when its data, its model or
    its recipe have changed, and for code that its recipe names unless `trust_code`.
    """
    folder = RunFolder(Path(path))
    recipe = folder.read_recipe(trust_code=trust_code, moved=moved)
    progress = progress or Silent()
    state = of_the_leader("finished" if folder.finished else "judged" if folder.judged else "")
    if state == "finished":
        raise KilotuneError(
            "the run is finished",
            where=str(path),
            fix=f"Nothing is left to do; to run it again: {advised('run', folder / record.RECIPE)}",
        )
    if state == "judged":
        return _reported(folder, recipe, progress)
    prepared = prepare(recipe, progress)
    if known := begun(folder):
        check_unchanged(folder, prepared, progress)
    ready = preflight(prepared, progress)
    prepared = ready.prepared
    check_base(folder, recipe, ready.source)
    more, added = augmented(clean(prepared, progress), progress)
    if known:
        check_record(folder, added)
    with folder.writing(), kept(folder, progress):
        folder.note_moves(moved)
        if not known:
            write_record(folder, added)
            begin(folder, more, base_identity(ready.source))
        if not (folder / record.ENVIRONMENT).exists():
            folder.write(record.environment())
        return _go_on(ready, more, folder, progress)


def _reported(folder: RunFolder, recipe: Recipe, progress: Progress) -> Run:
    """A run that is judged, with the report that it lacks."""
    progress.stage("The run is judged already: only its report is made")
    with folder.writing():
        _publish(folder, progress)
    run = open_run(folder.path)
    with trackers.tracked(recipe.tune.report_to, folder.path.name, recipe):
        _note(run, recipe)
    return run


def open_run(path: str | Path) -> Run:
    """The finished run in the folder `path`, as `run` returned it, from its records.

    Raises KilotuneError where it is not finished, or a record is damaged.
    """
    folder = RunFolder(Path(path))
    folder.check_finished()
    judged = folder.read(JudgementDocument)
    pseudo = folder.read_if_there(PseudoLabelsDocument)
    return Run(
        folder=folder.path,
        verdict=folder.read(VerdictDocument).verdict,
        judgements=judged.test,
        tuned_against_base=judged.tuned_against_base,
        forgetting=judged.forgetting,
        preference=judged.preference,
        weights=tuned_folder(folder.path),
        report=folder / record.REPORT,
        pseudo_labels=pseudo.outcome if pseudo else None,
    )


def _go_on(ready: Ready, more: Prepared, folder: RunFolder, progress: Progress) -> Run:
    """All that is left: `ready` is of the data as they were read, `more` with augmentation."""
    found, recipe = None, ready.prepared.recipe
    if ready.pool is not None:
        found = pseudo_labelled(ready.prepared, ready.pool, ready.source, folder, progress)
        more = joined(more, found)
        folder.write(more.record())
    with trackers.tracked(recipe.tune.report_to, folder.path.name, recipe):
        came = run_stages(more, ready.source, folder, progress, found)
        _publish(folder, progress)
        run = Run(
            folder=folder.path,
            verdict=came.verdict,
            judgements=tuple(came.on_test.judgements.values()),
            tuned_against_base=came.tuned_against_base,
            forgetting=came.forgetting,
            preference=came.preference,
            weights=came.weights,
            report=folder / record.REPORT,
            pseudo_labels=found.outcome if found else None,
        )
        _note(run, recipe)
    return run


def _note(run: Run, recipe: Recipe) -> None:
    """Tell trackers what came of the run."""
    figures = {
        f"test.{judged.name}.{name}": figure.value
        for judged in run.judgements
        for name, figure in judged.figures.items()
    }
    files = (run.folder / record.RECIPE, run.folder / record.VERDICT, run.report)
    trackers.note(recipe.tune.report_to, figures, files)


def _new_folder(out: Path | None, name: str) -> RunFolder:
    """What the leader makes; processes that train together all know it."""
    made = create_run(out, name).path if distributed.leads() else Path()
    return RunFolder(Path(of_the_leader(str(made))))


def _publish(folder: RunFolder, progress: Progress) -> None:
    """What people read of a run that is judged: the card of its weights, then its report.

    Without its base model there is no card; the report needs nothing but the records.
    """
    if not folder.writes:
        return
    try:
        describe(folder)
    except KilotuneError as error:
        progress.say(f"warning: no model card for the weights: {error}")
    build_report(folder)
