"""An ablation on disk: from a base recipe to a better one, which is tuned and judged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilotune import distributed
from kilotune.ablation import ray_cluster
from kilotune.ablation.coordinate_search import Ablation, Question, climb, units_of
from kilotune.ablation.ladder import check_factors
from kilotune.ablation.runner import Runner, Workers
from kilotune.ablation.tpe import search
from kilotune.ablation.workers import Blueprint, InTurn
from kilotune.data.example import references
from kilotune.data.files.writers import write_atomically
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import check_seeds
from kilotune.evaluation.baselines import majority
from kilotune.evaluation.judgement import scores_by_id
from kilotune.models.source import Source
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.advice import advised
from kilotune.recipe.difference import SettingChange, differences
from kilotune.recipe.load import dump_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs import record, trackers
from kilotune.runs.cost import Cost
from kilotune.runs.documents import (
    BaseScoresDocument,
    FoldsDocument,
)
from kilotune.runs.outcomes import AblationDocument
from kilotune.runs.record import RunFolder, create_run
from kilotune.runs.trials import TrialStore
from kilotune.session.loading import base_identity, check_base
from kilotune.session.workbench import every_epoch
from kilotune.workflows import run as pipeline
from kilotune.workflows.preflight import preflight
from kilotune.workflows.resuming import begin, begun, check_unchanged, kept

# Beside `judge.train_sample` for all trials of a recipe together, at least so many in each.
LEAST_ASKED = 5


@dataclass(frozen=True, slots=True)
class Experiment:
    """A finished ablation: its folder, how it went, what was changed in the recipe, what it took.

    `lost` counts the trials that were begun and went with their worker; `overhead` is the share of
    the trials' time that went neither to steps nor to answers; `final` is the folder of the run
    that ends it.
    """

    folder: Path
    ablation: Ablation
    changes: dict[str, SettingChange]
    trials: int
    lost: int
    cost: Cost
    overhead: float
    final: Path


def ablate(
    recipe: Recipe,
    out: Path | None = None,
    progress: Progress | None = None,
    place: ray_cluster.ClusterAddress | None = None,
) -> Experiment:
    """Look for a better recipe than `recipe`, in a new folder; end with it tuned and judged.

    Trials are done here one by one, or at `place` as many at once as it has room for; what is
    found is the same. Nothing is written before the data and the model's name are known to be
    usable. After Ctrl-C or worse, `resume` goes on without doing a finished trial again.
    """
    progress = progress or Silent()
    check_seeds(recipe.ablation.seeds, "ablation.seeds")
    check_factors(recipe.ablation.factors, recipe.ablation.only)
    _check_alone()
    if out is not None:
        record.check_new(out)
    prepared = prepare(_without_validation(recipe), progress)
    # What the final run needs is known before the trials.
    ready = preflight(prepared, progress)
    prepared, source = ready.prepared, ready.source
    folds = _folds(prepared)
    if place:
        ray_cluster.join(place)
    base = base_identity(source)
    folder = create_run(out, f"{recipe.data.train.stem}-ablation")
    with folder.writing():
        # First of all the folds: they tell an ablation from a run.
        folder.write(FoldsDocument(folds=_members(folds)))
        folder.write_recipe(prepared.recipe)
        begin(folder, prepared, base)
        return _go_on(prepared, source, folds, folder, progress, place)


def resume(
    path: Path,
    progress: Progress | None = None,
    place: ray_cluster.ClusterAddress | None = None,
    *,
    trust_code: bool = False,
    moved: Sequence[str] = (),
    **budget: Any,
) -> Experiment:
    """Go on with the ablation in `path`; `budget` may give other `minutes` or `trials`.

    It may go on at another `place` than it began; `moved` says where files and models lie now, as
    `data.train=FILE`. Raises KilotuneError where its data have changed,
    and for code that its recipe names unless `trust_code`.
    """
    progress = progress or Silent()
    _check_alone()
    folder = RunFolder(path)
    recipe = folder.read_recipe(trust_code=trust_code, moved=moved)
    given = {name: value for name, value in budget.items() if value is not None}
    recipe = recipe.model_copy(update={"ablation": recipe.ablation.model_copy(update=given)})
    prepared = prepare(recipe, progress)
    folds = _folds(prepared)
    if known := begun(folder):
        check_unchanged(folder, prepared, progress)
        _check_folds(folder, folds)
    if place:
        ray_cluster.join(place)
    ready = preflight(prepared, progress)
    prepared, source = ready.prepared, ready.source
    check_base(folder, recipe, source)
    with folder.writing():
        for each in (folder, RunFolder(folder / record.FINAL)):
            each.note_moves(moved)
        if not known:
            begin(folder, prepared, base_identity(source))
        return _go_on(prepared, source, folds, folder, progress, place)


def _check_folds(folder: RunFolder, folds: tuple[Fold, ...]) -> None:
    """Raise KilotuneError for other folds than the trials in `folder` were made on."""
    if folder.read(FoldsDocument).folds != _members(folds):
        raise KilotuneError(
            "this version of kilotune cuts the data into other folds than its trials were made on",
            where=str(folder.path),
            fix="Go on with the version that began it, or start a new one",
        )


def _go_on(
    prepared: Prepared,
    source: Source,
    folds: tuple[Fold, ...],
    folder: RunFolder,
    progress: Progress,
    place: ray_cluster.ClusterAddress | None,
) -> Experiment:
    recipe = prepared.recipe
    with kept(folder, progress), trackers.tracked(recipe.tune.report_to, folder.path.name, recipe):
        with _workers(prepared, source, folds, progress, place) as workers:
            store = TrialStore(folder / record.TRIALS, prepared.fingerprint)
            runner = Runner(workers, store, recipe.ablation, progress)
            found = _found(prepared, runner, folder, progress)
        del workers, runner.workers  # and the model: the final run loads it anew
        final = _final(found.best, folder, progress)
        best = {"out_of_fold": found.out_of_fold.value if found.out_of_fold else None}
        files = (folder / record.ABLATION, folder / record.BEST)
        trackers.note(recipe.tune.report_to, best, files)
    return Experiment(
        folder.path,
        found,
        differences(recipe, found.best),
        len(runner.done),
        runner.losses.total(),
        runner.cost,
        runner.overhead,
        final,
    )


@contextmanager
def _workers(
    prepared: Prepared,
    source: Source,
    folds: tuple[Fold, ...],
    progress: Progress,
    place: ray_cluster.ClusterAddress | None,
) -> Iterator[Workers]:
    """Who does the trials: this process, or the nodes at `place`."""
    settings, wanted = prepared.recipe.ablation, prepared.recipe.judge.train_sample
    units = settings.folds * len(settings.seeds)
    sample = max(LEAST_ASKED, -(-wanted // units))
    if place is None:
        progress.stage("Loading the model")
        yield InTurn(prepared, source, folds, sample, progress)
        return
    progress.stage(f"Workers at {place.address}")
    parent = trackers.opened(prepared.recipe.tune.report_to)
    make = Blueprint(prepared, folds, sample, parent, record.code_digest())
    with ray_cluster.workers(place, make, units, progress) as crew:
        yield crew


def _found(prepared: Prepared, runner: Runner, folder: RunFolder, progress: Progress) -> Ablation:
    """What the trials come to. Raises KilotuneError where none was of another recipe."""
    recipe = prepared.recipe
    settings = recipe.ablation
    question = _question(prepared, runner.workers, folder)
    planned = len(question.units)
    progress.stage(f"Trials: {settings.folds} folds × {len(settings.seeds)} seeds each")
    with progress.bar("trials", settings.trials or planned) as bar:
        runner.bar = bar
        found = _search(recipe, question, runner, _Keeper(folder, recipe, progress))
    progress.say(f"Ended: {found.ended}")
    if found.spent and not found.rungs:
        # The test may be opened once: not for a recipe that nothing was tried against.
        raise KilotuneError(
            f"nothing was tried against the base recipe: {found.ended.partition(';')[0]}",
            where=str(folder.path),
            fix="Go on, with more --minutes or --trials (base and one candidate take "
            f"{2 * planned}): {advised('ablate', folder.path)}",
        )
    return found


def _search(recipe: Recipe, question: Question, run: Runner, keeper: "_Keeper") -> Ablation:
    settings = recipe.ablation
    if settings.search == "ladder":
        return climb(recipe, question, run, keeper.note)
    return search(
        recipe, question, run, keeper.note, candidates=settings.candidates, seed=recipe.seed
    )


def _final(best: Recipe, folder: RunFolder, progress: Progress) -> Path:
    """The best recipe tuned on all training data and judged on the test, once. Returns where."""
    place = folder / record.FINAL
    final = RunFolder(place)
    progress.stage("The final recipe, tuned on all training data")
    if not (place / record.RECIPE).exists():
        return pipeline.start(prepare(best, Silent()), place, progress).folder
    # Another budget makes no other recipe.
    if final.read_recipe(runs=()).model_copy(update={"ablation": best.ablation}) != best:
        raise KilotuneError(
            "the final run is there already, by another recipe, and the test may be opened once",
            where=str(place),
            fix=f"Keep it, or move it away and run: {advised('run', folder / record.BEST)}",
        )
    if final.finished:
        return place
    # It is the recipe in memory, whose code was trusted or is the caller's own.
    return pipeline.resume(place, progress, trust_code=True).folder


def _check_alone() -> None:
    if distributed.count() > 1:
        raise KilotuneError(
            "an ablation's trials are done by one process each", fix="Use --ray, without torchrun"
        )


def _without_validation(recipe: Recipe) -> Recipe:
    """Folds take the place of a validation part, and there is nothing to stop by but the epochs.

    A validation file that is given stays aside: it is neither trained on nor chosen by.
    """
    data = recipe.data
    if data.validation is None:
        data = data.model_copy(update={"validation_fraction": 0.0})
    return every_epoch(recipe.model_copy(update={"data": data}))


def _folds(prepared: Prepared) -> tuple[Fold, ...]:
    recipe = prepared.recipe
    return make_folds(prepared.parts.train, recipe.ablation.folds, recipe.seed)


def _members(folds: Sequence[Fold]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(example.id for example in fold.validation) for fold in folds)


def _question(prepared: Prepared, workers: Workers, folder: RunFolder) -> Question:
    settings, train = prepared.recipe.ablation, prepared.parts.train
    if prepared.task == "classify":
        common = majority(references(train), len(train))
        floor = scores_by_id(prepared.task, train, common)
    else:
        known = folder.read_if_there(BaseScoresDocument)
        if known is None:
            known = BaseScoresDocument(scores=workers.base_scores(prepared.recipe))
            folder.write(known)
        floor = known.scores
    return Question(
        units=units_of(settings.folds, settings.seeds),
        task=prepared.task,
        facts=workers.facts(),
        floor=floor,
        factors=settings.factors,
        only=settings.only,
    )


class _Keeper:
    """Writes down how far the ablation is, and the best recipe so far, whenever that changes."""

    def __init__(self, folder: RunFolder, base: Recipe, progress: Progress) -> None:
        self.folder, self.base, self.progress = folder, base, progress
        self.said = self.known = 0
        if not (folder / record.BEST).exists():
            write_atomically(folder / record.BEST, dump_recipe(base, folder.path))
        elif found := folder.read_if_there(AblationDocument):
            self.known = len(found.rungs)

    def note(self, state: Ablation) -> None:
        """Record `state`, and say what the last rung came to."""
        # While it is gone on with, what is on record is further until all of it was looked up.
        if len(state.rungs) >= self.known or state.ended:
            best = dump_recipe(state.best, self.folder.path)
            write_atomically(self.folder / record.BEST, best)
            self.folder.write(as_document(self.base, state))
        for rung in state.rungs[self.said :]:
            found = next((t for t in rung.tried if t.decision == "adopted"), None)
            came = f"{rung.before} → {found.value}: {found.reason}" if found else "nothing adopted"
            self.progress.say(f"{rung.factor}: {came}")
        if self.said == 0 and state.verdict and not state.rungs:
            figure = f"base recipe, out of fold: {state.out_of_fold}"
            self.progress.say(f"{figure}; {state.verdict.name}")
        self.said = len(state.rungs)


def as_document(base: Recipe, state: Ablation) -> AblationDocument:
    """What `ablation.json` holds."""
    return AblationDocument(
        ended=state.ended,
        verdict=state.verdict,
        out_of_fold=state.out_of_fold,
        rungs=state.rungs,
        changes=differences(base, state.best),
    )
