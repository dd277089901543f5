"""Whether augmentation earns its place: tuned with and without, on the same folds and seeds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kilotune.ablation.coordinate_search import as_trials
from kilotune.data.files.claims import held
from kilotune.data.files.writers import PART, remove_leftovers, to_json, write_atomically
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import SEEDS, Adoption, Candidate, adopt_among
from kilotune.models.learning_rate import with_learning_rate
from kilotune.models.source import locate
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.runs.record import fingerprint
from kilotune.runs.trials import Trial, TrialStore, Unit
from kilotune.session.loading import base_identity
from kilotune.session.workbench import Workbench, every_epoch, in_steps, untold

# What every operation is compared with; and as many steps on the old examples alone, since more
# examples in as many epochs are more steps.
WITHOUT, LONGER = "without", "without, as many steps"
TRIALS, RESULT, LOCK = "trials", "trial.json", "trial.lock"
OWN = {TRIALS, RESULT, LOCK}


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What was found: each condition's steps on the first fold, and the decision on each.

    `beyond` are the decisions on the operations against as many steps without. `earned` are those
    that are better than both: more examples than steps alone would have been worth.
    """

    metric: str
    steps: Mapping[str, int]
    decisions: Mapping[str, Adoption]
    beyond: Mapping[str, Adoption]
    earned: tuple[str, ...]


def run_trial(
    recipe: Recipe, out: Path, progress: Progress, *, folds: int = 5, seeds: int = SEEDS
) -> TrialOutcome:
    """Tune with each operation of the recipe and without, and decide on each by paired evidence.

    On `folds` folds of what the recipe leaves when its test part is put aside, which stays closed.
    All epochs are trained. The folder `out` keeps each tuning, so that a stopped trial goes on.
    Raises KilotuneError where no operation is named, or one twice.
    """
    every = recipe.with_settings({"data.validation_fraction": 0.0, "data.validation": None})
    prepared = prepare(every, progress)
    parts = make_folds(prepared.parts.train, folds, recipe.seed)
    return try_folds(prepared, parts, out, progress, seeds=seeds)


def try_folds(
    prepared: Prepared, folds: Sequence[Fold], out: Path, progress: Progress, *, seeds: int = SEEDS
) -> TrialOutcome:
    """The same on given folds; `prepared` has no validation part."""
    names = [how.op for how in prepared.recipe.augment.operations]
    if not names or len(set(names)) < len(names):
        raise KilotuneError(
            "no operation is named, or one twice", fix="Name each once: --op synonym --op swap"
        )
    with held(_folder(out) / LOCK, out):
        remove_leftovers(out)
        tried = _tried(prepared, folds, names, out / TRIALS, progress, seeds)
        write_atomically(out / RESULT, to_json(tried) + "\n")
    return tried


def _tried(
    prepared: Prepared,
    folds: Sequence[Fold],
    names: Sequence[str],
    kept: Path,
    progress: Progress,
    seeds: int,
) -> TrialOutcome:
    source = locate(prepared.recipe.model)
    recipe = with_learning_rate(prepared.recipe, source)
    prepared = replace(prepared, recipe=recipe)
    data = fingerprint(e for fold in folds for e in (*fold.train, *fold.validation))
    # Where a model lies is in no trial's settings: an ablation is bound to its model's identity.
    store = TrialStore(kept, json.dumps([data, base_identity(source)], sort_keys=True))
    bench = Workbench(prepared, source, folds, progress)
    units = [Unit(fold.number, recipe.seed + seed) for seed in range(seeds) for fold in folds]
    done: dict[str, dict[Unit, Trial]] = {name: {} for name in (WITHOUT, *names, LONGER)}
    with progress.bar("tunings", len(units) * len(done)) as bar:
        for unit in units:
            for name, trials in done.items():
                own = _settings(recipe, name)
                if name == LONGER:
                    steps = {name: len(done[name][unit].losses) for name in (WITHOUT, *names)}
                    own = in_steps(own, steps.pop(WITHOUT), max(steps.values()))
                found = store.find(own, unit)
                if found is None:
                    found = bench.run(own, unit, 0, watched=False)
                    store.keep(own, found)
                    mean = sum(found.scores.values()) / max(1, len(found.scores))
                    progress.say(f"{name}, fold {unit.fold + 1}, seed {unit.seed}: {mean:.3f}")
                trials[unit] = found
                bar.advance()
    return decided(prepared.task, done)


def decided(task: str, done: Mapping[str, Mapping[Unit, Trial]]) -> TrialOutcome:
    """The decisions on what was tuned: the scores of all folds of a seed are one system's."""
    by_name = {name: as_trials(list(trials.values())) for name, trials in done.items()}
    before = by_name.pop(WITHOUT)
    candidates = {name: Candidate(of) for name, of in by_name.items()}
    decisions = adopt_among(before, candidates)
    longer = candidates.pop(LONGER).trials
    beyond = adopt_among(longer, candidates)
    earned = tuple(n for n in candidates if decisions[n].adopted and beyond[n].adopted)
    steps = {name: len(next(iter(trials.values())).losses) for name, trials in done.items()}
    return TrialOutcome(
        "accuracy" if task == "classify" else "score", steps, decisions, beyond, earned
    )


def _settings(recipe: Recipe, condition: str) -> Recipe:
    """The recipe of one condition: one operation or none, all of its epochs, told to no tracker."""
    chosen = tuple(how for how in recipe.augment.operations if how.op == condition)
    return untold(every_epoch(recipe.with_settings({"augment.operations": chosen})))


def _folder(out: Path) -> Path:
    """`out`, made if it is not there. Raises KilotuneError where it holds anything but a trial."""
    if out.exists() and not (out.is_dir() and all(_own(path.name) for path in out.iterdir())):
        raise KilotuneError(
            "exists already and is no trial", where=str(out), fix="Name another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    return out


def _own(name: str) -> bool:
    """Whether a trial has a file of that name, or had it when it was killed."""
    return name in OWN or bool(PART.fullmatch(name))
