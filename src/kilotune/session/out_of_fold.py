"""Answers out of fold: what judges a run whose validation part is too small to tell.

Cross-validation whose first fold is the run's own: its validation part was answered by the tuned
model. Further parts of the training examples are answered by models that are tuned without them, by
the same recipe, until enough examples are answered by a model that has not seen them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilotune import distributed
from kilotune.data.example import references
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import majority
from kilotune.models.source import Source
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.runs import record
from kilotune.runs.cost import Cost, total
from kilotune.runs.record import RunFolder, fingerprint
from kilotune.runs.trials import Trial, TrialStore, Unit
from kilotune.session.judging import Judged, judged
from kilotune.session.loading import released
from kilotune.session.model_session import Answers, Session
from kilotune.session.workbench import Workbench, as_tuned
from kilotune.training.tuning_result import Tuning

# Of so many answers, 85% of them right, the 95% interval is 14 points wide; of 20 it is 31.
ENOUGH = 100


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """All systems on validation and on what further folds held out; `folds` counts both.

    `cost` is that of the further tunings.
    """

    judged: Judged
    folds: int
    cost: Cost


def more_folds(prepared: Prepared, progress: Progress) -> tuple[Fold, ...]:
    """The folds to be answered besides validation; none where that is enough, or it cannot be.

    Each is as large as validation, about, and is learnt without from all else that was labelled.
    """
    validation = prepared.parts.validation
    lacking = ENOUGH - len(validation)
    if not validation or lacking <= 0 or not _foldable(prepared):
        return ()
    known = [example for example in prepared.parts.train if not example.origin.parent]
    count = max(2, round(len(known) / len(validation)))
    try:
        folds = make_folds(known, count, prepared.recipe.seed)
    except KilotuneError as error:
        progress.say(f"judged by validation alone: {error.what}")
        return ()
    needed = -(-lacking * count // len(known))
    return tuple(replace(fold, train=(*fold.train, *validation)) for fold in folds[:needed])


def _foldable(prepared: Prepared) -> bool:
    """Whether what folds hold out says what validation says.

    A validation part of the user's own may be unlike the rest on purpose. Pseudo-labels were made
    by models that have seen what a fold would hold out.
    """
    recipe = prepared.recipe
    return (
        recipe.judge.out_of_fold == "auto"
        and not prepared.own_validation
        and recipe.unlabeled.file is None
        and distributed.count() == 1
    )


def out_of_fold(
    session: Session,
    source: Source,
    folds: Sequence[Fold],
    tuning: Tuning,
    on_validation: Judged,
    folder: RunFolder,
) -> OutOfFold:
    """Tune on each of `folds`, and judge their answers together with those to validation.

    The session's model is used up: its adapters are gone afterwards. Each tuning is kept in
    `folder`, so that a stopped run goes on. Raises Interrupted after Ctrl-C.
    """
    asked = [example for fold in folds for example in fold.validation]
    answers = {
        "majority": Answers(tuple(_commonest(folds))),
        "base": session.base_answer(asked),
    }
    trials = _trials(session, source, folds, tuning, folder)
    predictions = {id: said for trial in trials for id, said in trial.predictions.items()}
    answers["tuned"] = Answers(tuple(predictions[example.id] for example in asked))
    before = on_validation.answers
    together = {
        name: Answers((*before[name].predictions, *said.predictions))
        for name, said in answers.items()
    }
    examples = (*on_validation.examples, *asked)
    cost = total(trial.cost for trial in trials)
    return OutOfFold(judged(session, examples, together), 1 + len(folds), cost)


def _commonest(folds: Sequence[Fold]) -> list[str]:
    """For what each fold holds out, the commonest answer of the rest."""
    return [said for f in folds for said in majority(references(f.train), len(f.validation))]


def _trials(
    session: Session, source: Source, folds: Sequence[Fold], tuning: Tuning, folder: RunFolder
) -> list[Trial]:
    """What the model of each fold answers, tuned in the steps behind which the run's was best."""
    prepared = session.prepared
    parts = (*prepared.parts.train, *prepared.parts.validation)
    store = TrialStore(folder / record.OUT_OF_FOLD, fingerprint(parts))
    recipe = as_tuned(prepared.recipe, prepared.parts.train, tuning)
    bench = Workbench(prepared, source, folds, session.progress, released(session))
    trials = []
    with session.progress.bar("folds", len(folds)) as bar:
        for place, fold in enumerate(folds):
            unit = Unit(place, prepared.recipe.seed)
            trial = store.find(recipe, unit)
            if trial is None:
                trial = bench.run(recipe, unit, sample=0, watched=False)
                store.keep(recipe, trial)
            trials.append(trial)
            bar.advance(note=f"{len(fold.validation)} answered")
    return trials
