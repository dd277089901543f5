"""Pseudo-labels: unlabelled texts that the tuned model labels, kept where paired evidence says so.

Self-training (Lee 2013; several rounds as in Xie et al. 2020, "Noisy Student"), each round from the
base model. Every choice is made on out-of-fold answers of the training part: a fold's own texts are
known neither to the model that labels for it nor to the one tuned on those labels.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kilotune import distributed
from kilotune.data.example import Example, Task, references
from kilotune.data.folds import Fold, make_folds
from kilotune.data.normalise import without_answer
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import Trials, adopt, check_seeds
from kilotune.evaluation.confidence import Guess, Trust, trust
from kilotune.evaluation.judgement import scores
from kilotune.evaluation.task_metrics import TASKS
from kilotune.models.source import Source
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.runs import record
from kilotune.runs.cost import Cost, total
from kilotune.runs.outcomes import (
    Picked,
    PseudoLabelledExample,
    PseudoLabels,
    PseudoLabelsDocument,
    SeedOfRound,
    SelfTrainingRound,
)
from kilotune.runs.record import RunFolder, fingerprint
from kilotune.runs.stage_store import Stage, StageStore, Told
from kilotune.self_training.acceptance import (
    OPERATION,
    AcceptedGuesses,
    as_examples,
    quotas,
    real_precision,
    select,
)
from kilotune.self_training.guesses import against_truth, altered, guess
from kilotune.self_training.pool import Pool, read_pool
from kilotune.session.workbench import Workbench, every_epoch, in_steps, untold

# For each labelled training example, where `unlabeled.most` is left to us.
MOST = 2
# What a round is compared with besides the round before.
STEPS = "as many steps on the labelled examples alone"


@dataclass(frozen=True, slots=True)
class PseudoLabelled:
    """What came of it, with the examples to be tuned on, none where all was rolled back.

    `confidences` are those of the rows they were made of, by id.
    """

    outcome: PseudoLabels
    examples: tuple[Example, ...] = ()
    confidences: Mapping[str, float] = field(default_factory=dict)


class SelfTraining:
    """Rounds of labelling and tuning anew; everything asked for is computed once and kept.

    `folds` cut the training part, `whole` is all of it with whatever else is to be judged. Round
    0 is tuned without pseudo-labels; the model of a round labels for the next.
    """

    def __init__(
        self,
        bench: Workbench,
        folds: Sequence[Fold],
        whole: Fold,
        pool: Pool,
        store: StageStore,
    ) -> None:
        self.bench, self.folds, self.pool, self.store = bench, folds, pool, store
        self.parts = {fold.number: fold for fold in (*folds, whole)}
        self.whole = whole.number
        # Trackers know the run alone.
        self.recipe: Recipe = untold(every_epoch(bench.prepared.recipe))
        self.task: Task = bench.prepared.task
        self.labels = bench.prepared.labels
        settings = self.recipe.unlabeled
        train = bench.prepared.parts.train
        most = MOST * len(train) if settings.most == "auto" else settings.most
        self.quota = quotas(train, most)
        self._told: dict[Stage, Told] = {}
        self._trusted: dict[tuple[int, int], Trust] = {}

    def told(self, stage: Stage) -> Told:
        """What the model of `stage` answers; tuned now, unless it was before."""
        if stage not in self._told:
            self._told[stage] = self._found(stage)
        return self._told[stage]

    def _found(self, stage: Stage) -> Told:
        """The same from the store, or tuned; without a pseudo-label to learn from, of round 0."""
        added = self.added(replace(stage, longer=False)) if stage.round else ()
        if stage.round and not added:
            return self.told(Stage(0, stage.fold, stage.seed))
        if stage.longer:
            added, first = (), self.told(Stage(0, stage.fold, stage.seed))
            if self.told(replace(stage, longer=False)).steps == first.steps:
                return first
        made_of = self._made_of(stage, added)
        found = self.store.find(stage, made_of)
        if found is None:
            labels_too = stage.round < self.recipe.unlabeled.rounds and not stage.longer
            found = self._tune(stage, added, labels_too=labels_too)
            self.store.keep(stage, made_of, found)
        return found

    def trusted(self, number: int, seed: int) -> Trust:
        """From where up the guesses that round `number` learns from are right, out of fold."""
        if (number, seed) not in self._trusted:
            said: dict[str, Guess] = {}
            for fold in self.folds:
                said |= self.told(Stage(number - 1, fold.number, seed)).held_out
            train = [example for fold in self.folds for example in fold.validation]
            held = against_truth(self.task, self.labels, train, [said[e.id] for e in train])
            self._trusted[number, seed] = trust(
                held.guesses, held.truth, held.right, self.recipe.unlabeled.target_precision
            )
        return self._trusted[number, seed]

    def selection(self, stage: Stage) -> AcceptedGuesses:
        """What the model of the round before gives the model of `stage` to learn from."""
        teacher = self.told(replace(stage, round=stage.round - 1))
        return select(
            teacher.unlabeled,
            self.labels,
            self.trusted(stage.round, stage.seed),
            self.quota,
            stage.seed,
            soft=self.recipe.unlabeled.labels == "soft",
        )

    def added(self, stage: Stage) -> tuple[Example, ...]:
        """The examples that the model of `stage` is tuned on besides the labelled ones."""
        closed, weight = self.task == "classify", self.recipe.unlabeled.weight
        chosen = self.selection(stage)
        rows = {one.id: self.pool.rows[one.id] for one in chosen.taken}
        if self.recipe.unlabeled.train_on == "altered":
            rows |= self._altered(rows, stage.seed)
        return as_examples(chosen, rows, weight, closed=closed)

    def _altered(self, rows: Mapping[str, Example], seed: int) -> dict[str, Example]:
        """A version of each row that has one, by the operations in turn; under the row's own id."""
        count = len(self.recipe.unlabeled.operations)
        made = altered(self.recipe, tuple(rows.values()), count, seed=seed)
        return {
            row.id: replace(own[place % len(own)], id=row.id, origin=row.origin)
            for place, (row, own) in enumerate(zip(rows.values(), made, strict=True))
            if own
        }

    def picked(self, stage: Stage) -> Picked:
        """The same as counts, with what the file's own labels say of it."""
        chosen = self.selection(stage)
        right = {
            one.id: TASKS[self.task].right(one.answer, self.pool.truths[one.id])
            for one in chosen.taken
            if one.id in self.pool.truths
        }
        return Picked(len(chosen.taken), chosen.by_label, chosen.left, real_precision(right))

    @property
    def cost(self) -> Cost:
        """Of every tuning asked for and the answers after it, now or before a run was stopped."""
        return total({id(told): told.cost for told in self._told.values()}.values())

    def out_of_fold(self, number: int, seed: int, *, longer: bool = False) -> dict[str, float]:
        """How well each training example is answered by its fold's model of round `number`."""
        return {
            id: score
            for fold in self.folds
            for id, score in self.told(Stage(number, fold.number, seed, longer)).scores.items()
        }

    def _recipe(self, stage: Stage) -> Recipe:
        """What a stage is tuned by: a control in as many steps as its own round took."""
        if not stage.longer:
            return self.recipe
        first, own = (self.told(Stage(n, stage.fold, stage.seed)) for n in (0, stage.round))
        return in_steps(self.recipe, first.steps, own.steps)

    def _made_of(self, stage: Stage, added: Sequence[Example]) -> str:
        """What tells a tuning from others of its stage: all it learns from, and all it answers."""
        fold = self.parts[stage.fold]
        parts = (fold.train, added, fold.validation, self.pool.rows.values())
        longer = [f"{self._recipe(stage).tune.epochs} epochs"] if stage.longer else []
        return " ".join([*map(fingerprint, parts), *(str(e.weight) for e in added), *longer])

    def _tune(self, stage: Stage, added: Sequence[Example], *, labels_too: bool) -> Told:
        began = time.perf_counter()
        fold, rows = self.parts[stage.fold], tuple(self.pool.rows.values())
        with self.bench.tuned(self._recipe(stage), fold, stage.seed, added) as (session, tuning):
            held, kept, model = fold.validation, self.bench.kept(session), session.tunable.model
            said = session.answer(model, held, "validating", kept=kept).predictions
            guesses = guess(session, (*held, *rows), kept) if labels_too else ()
            spent = tuning.tokens, session.spent.generated
        values = scores(self.task, references(held), said)
        ids = [example.id for example in held]
        return Told(
            scores=dict(zip(ids, values, strict=True)),
            predictions=dict(zip(ids, said, strict=True)),
            held_out=dict(zip(ids, guesses[: len(held)], strict=False)),
            unlabeled={row.id: g for row, g in zip(rows, guesses[len(held) :], strict=False)},
            added=len(added),
            steps=tuning.steps,
            cost=Cost(round(time.perf_counter() - began, 2), *spent),
        )


def pseudo_labelled(
    prepared: Prepared, pool: Pool, source: Source, folder: RunFolder, progress: Progress
) -> PseudoLabelled:
    """Pseudo-labels of the texts in `pool` for the training part, if they help.

    `prepared` is of the data as they were read. Every tuning is kept in the run's folder, so that
    a stopped run goes on. Raises KilotuneError where it would go on with other examples.
    """
    progress.stage("Pseudo-labels: tuning on folds, without and with them")
    train, recipe = prepared.parts.train, prepared.recipe
    folds = make_folds(train, recipe.unlabeled.folds, recipe.seed)
    whole = Fold(len(folds), train, ())
    bench = Workbench(prepared, source, folds, progress)
    store = StageStore(folder / record.STAGES, recipe)
    training = SelfTraining(bench, folds, whole, pool, store)
    found = outcome(training, progress)
    for line in found.outcome.lines():
        progress.say(line)
    _keep(folder, found)
    return found


def open_pool(prepared: Prepared, progress: Progress) -> Pool | None:
    """The texts of the recipe's unlabelled file; None where it names none.

    Raises KilotuneError where the file cannot be read, or its texts cannot be labelled.
    """
    settings, where = prepared.recipe.unlabeled, "unlabeled"
    if settings.file is None:
        return None
    if prepared.task == "chat":
        raise KilotuneError(
            "conversations cannot be pseudo-labelled: there is no telling when two answers agree",
            where=where,
            fix="Leave --unlabeled out, or make the task generate (--task generate)",
        )
    if settings.labels == "soft" and prepared.task != "classify":
        raise KilotuneError(
            "soft labels are of closed labels alone",
            where=f"{where}.labels",
            fix="Set it to hard",
        )
    if distributed.count() > 1:
        raise KilotuneError(
            "pseudo-labels are made by one process",
            where=where,
            fix="Run it without torchrun, or leave --unlabeled out",
        )
    check_seeds(settings.seeds, f"{where}.seeds")
    if settings.consistency or settings.train_on == "altered":
        # What cannot be done is said before hours of tuning.
        few = [without_answer(example) for example in prepared.parts.train[:3]]
        altered(prepared.recipe, few, len(settings.operations), seed=prepared.recipe.seed)
    return read_pool(prepared, progress)


def outcome(training: SelfTraining, progress: Progress) -> PseudoLabelled:
    """Round after round, as long as each is kept; the last that is counts."""
    settings, pool = training.recipe.unlabeled, training.pool
    rounds: list[SelfTrainingRound] = []
    for number in range(1, settings.rounds + 1):
        rounds.append(one_round(training, number, progress))
        if not rounds[-1].kept:
            break
    kept = sum(one.kept for one in rounds)
    found = PseudoLabels(
        file=str(settings.file),
        rows=pool.total,
        left=pool.left,
        looked_at=len(pool.rows),
        target=settings.target_precision,
        rounds=tuple(rounds),
        kept=kept,
        cost=training.cost,
    )
    if not kept:
        return PseudoLabelled(found)
    final = Stage(kept, training.whole, settings.seeds[0])
    chosen, trusted = training.picked(final), training.trusted(kept, final.seed)
    examples = training.added(final)
    confidences = {one.id: one.confidence for one in training.selection(final).taken}
    found = replace(found, chosen=chosen, trust=trusted, cost=training.cost)
    return PseudoLabelled(found, examples, confidences)


def one_round(training: SelfTraining, number: int, progress: Progress) -> SelfTrainingRound:
    """A round's seeds, compared with the round before on the same out-of-fold examples.

    More examples in as many epochs are more steps, which may gain something by themselves: so they
    are also compared with as many steps without pseudo-labels. Stops after the first seed where no
    confidence is supported, or where it is no better than either: the other seeds could hardly make
    that a sure gain, and no gain is believed that is not sure.
    """
    seeds: list[SeedOfRound] = []
    before: list[dict[str, float]] = []
    after: list[dict[str, float]] = []
    longer: list[dict[str, float]] = []
    for seed in training.recipe.unlabeled.seeds:
        found = training.trusted(number, seed)
        stages = [Stage(number, fold.number, seed) for fold in training.folds]
        picked = tuple(training.picked(stage) for stage in stages)
        before.append(training.out_of_fold(number - 1, seed))
        after.append(training.out_of_fold(number, seed))
        one = SeedOfRound(seed, found, picked, _mean(before[-1]), _mean(after[-1]))
        if seeds or not _hopeless(one, training):
            longer.append(training.out_of_fold(number, seed, longer=True))
            one = replace(one, longer=_mean(longer[-1]))
        seeds.append(one)
        progress.say(f"round {number}, seed {seed}: {_seed_line(one)}")
        if len(seeds) == 1 and (why := _hopeless(one, training)):
            return SelfTrainingRound(number, tuple(seeds), False, why)
    return _decided(number, seeds, *(Trials(tuple(each)) for each in (before, after, longer)))


def _decided(
    number: int, seeds: Sequence[SeedOfRound], before: Trials, after: Trials, longer: Trials
) -> SelfTrainingRound:
    """The round, kept if it is surely better than the one before and than as many steps."""
    adoption, beyond = adopt(before, after), adopt(longer, after)
    kept = adoption.adopted and beyond.adopted
    reason = f"{'kept' if kept else 'rolled back'}: {adoption.reason}"
    if adoption.adopted:
        reason += f"; over {STEPS}: {beyond.reason}"
    return SelfTrainingRound(number, tuple(seeds), kept, reason, adoption, beyond)


def _hopeless(first: SeedOfRound, training: SelfTraining) -> str:
    target = training.recipe.unlabeled.target_precision
    if first.trust.threshold is None:
        return (
            f"nothing taken: of {first.trust.examples} out-of-fold answers, "
            f"{first.trust.accuracy:.0%} right, no confidence has a precision of at least "
            f"{target:g} with 95% certainty"
        )
    if not any(one.taken for one in first.folds):
        return "nothing taken: no unlabelled text reaches the threshold"
    if first.after <= first.before:
        gain = 100 * (first.after - first.before)
        return f"rolled back after one seed, which gained nothing ({gain:+.1f} points)"
    if first.longer is not None and first.after <= first.longer:
        return f"rolled back after one seed: {STEPS} gained as much: try tune.epochs"
    return ""


def _seed_line(one: SeedOfRound) -> str:
    found = one.trust
    if found.threshold is None:
        return f"temperature {found.temperature:.2f}, no threshold is supported"
    taken = "/".join(str(fold.taken) for fold in one.folds)
    longer = "" if one.longer is None else f", {one.longer:.3f} without in as many steps"
    return (
        f"temperature {found.temperature:.2f}, threshold {found.threshold:.3f} (precision "
        f"{found.precision}, {found.above} answers), {taken} taken; {one.before:.3f} without, "
        f"{one.after:.3f} with{longer}"
    )


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def joined(prepared: Prepared, found: PseudoLabelled | None) -> Prepared:
    """The run's data with the pseudo-labelled examples in the training part."""
    if found is None or not found.examples:
        return prepared
    parts = prepared.parts
    return replace(prepared, parts=replace(parts, train=(*parts.train, *found.examples)))


def labelled(train: Sequence[Example]) -> tuple[Example, ...]:
    """The training part without its pseudo-labelled examples."""
    return tuple(example for example in train if example.origin.operation != OPERATION)


def _keep(folder: RunFolder, found: PseudoLabelled) -> None:
    """Write `pseudo_labels.json`. Raises KilotuneError where another run's worth is there."""
    digest = fingerprint(found.examples)
    if known := folder.read_if_there(PseudoLabelsDocument):
        if known.fingerprint == digest:
            return
        raise KilotuneError(
            "pseudo-labelling took other examples than when the run began",
            where=str(folder.path),
            fix=f"Restore {found.outcome.file}, or start a new run",
        )
    folder.write(as_document(found, digest))


def as_document(found: PseudoLabelled, digest: str) -> PseudoLabelsDocument:
    """What `pseudo_labels.json` holds."""
    examples = tuple(
        PseudoLabelledExample(
            id=example.id,
            row=example.origin.row,
            parent=example.origin.parent,
            operation=example.origin.operation,
            answer=example.label or example.answer,
            weight=example.weight,
            confidence=found.confidences[example.origin.parent],
        )
        for example in found.examples
    )
    return PseudoLabelsDocument(fingerprint=digest, outcome=found.outcome, examples=examples)
