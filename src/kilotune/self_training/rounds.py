"""Pseudo-labels: unlabelled texts that the tuned model labels, kept where paired evidence says so.

Self-training (Lee 2013; several rounds as in Xie et al. 2020, "Noisy Student"), each round from the
base model. Every choice is made on out-of-fold answers of the training part: a fold's own texts are
known neither to the model that labels for it nor to the one tuned on those labels.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kilotune.data.example import Example, Task
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import Trials, adopt
from kilotune.evaluation.confidence import Trust, trust
from kilotune.evaluation.judgement import scores_by_id
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
from kilotune.self_training.pool import Pool
from kilotune.session.workbench import Workbench, every_epoch, in_steps, untold

# For each labelled training example, where `unlabeled.most` is left to us.
MOST = 2
# By seed, of each round so far, what the model of each fold says.
Models = dict[int, list[list[Told]]]
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
    """The steps that rounds are made of, on folds of the training part and on the whole of it.

    `folds` cut the training part, `whole` is all of it with whatever else is to be judged. Every
    tuning is from the base model; one that is in the store is not done again.
    """

    def __init__(
        self, bench: Workbench, folds: Sequence[Fold], whole: Fold, pool: Pool, store: StageStore
    ) -> None:
        self.bench, self.folds, self.pool, self.store = bench, folds, pool, store
        self.parts = {fold.number: fold for fold in (*folds, whole)}
        self.whole = whole.number
        # Trackers know the run alone.
        self.recipe: Recipe = untold(every_epoch(bench.prepared.recipe))
        self.task: Task = bench.prepared.task
        self.labels = bench.prepared.labels
        train, most = bench.prepared.parts.train, self.recipe.unlabeled.most
        self.quota = quotas(train, MOST * len(train) if most == "auto" else most)
        self._costs: list[Cost] = []

    @property
    def cost(self) -> Cost:
        """Of every tuning asked for and the answers after it, now or before a run was stopped."""
        return total(self._costs)

    def tuned(
        self, stage: Stage, added: Sequence[Example] = (), recipe: Recipe | None = None
    ) -> Told:
        """What the model of `stage` answers, tuned on `added` too, unless it was before.

        It is tuned by `recipe` where that is another than the run's.
        """
        recipe = recipe or self.recipe
        made_of = self._made_of(stage, added, recipe)
        told = self.store.find(stage, made_of)
        if told is None:
            told = self._tune(stage, added, recipe)
            self.store.keep(stage, made_of, told)
        self._costs.append(told.cost)
        return told

    def trusted(self, teachers: Sequence[Told]) -> Trust:
        """From where up guesses are right, by those of each fold's model on what it holds out."""
        said = {id: guess for told in teachers for id, guess in told.held_out.items()}
        train = [example for fold in self.folds for example in fold.validation]
        held = against_truth(self.task, self.labels, train, [said[e.id] for e in train])
        target = self.recipe.unlabeled.target_precision
        return trust(held.guesses, held.truth, held.right, target)

    def accepted(self, teacher: Told, trusted: Trust, seed: int) -> AcceptedGuesses:
        """Which of a model's guesses on the unlabelled texts are taken as labels."""
        soft = self.recipe.unlabeled.labels == "soft"
        return select(teacher.unlabeled, self.labels, trusted, self.quota, seed, soft=soft)

    def retrained(self, stage: Stage, chosen: AcceptedGuesses, plain: Told) -> Told:
        """What the model of `stage` answers, tuned on the `chosen` pseudo-labels too.

        Without any to learn from it is the `plain` model of its fold, that of round 0.
        """
        added = self.examples(chosen, stage.seed)
        return self.tuned(stage, added) if added else plain

    def control(self, stage: Stage, plain: Told, student: Told) -> Told:
        """The same as `plain` in as many steps as the `student` of pseudo-labels took."""
        if student.steps == plain.steps:
            return plain
        longer = in_steps(self.recipe, plain.steps, student.steps)
        return self.tuned(replace(stage, longer=True), recipe=longer)

    def examples(self, chosen: AcceptedGuesses, seed: int) -> tuple[Example, ...]:
        """The examples that pseudo-labels make, to be tuned on besides the labelled ones."""
        closed, weight = self.task == "classify", self.recipe.unlabeled.weight
        rows = {one.id: self.pool.rows[one.id] for one in chosen.taken}
        if self.recipe.unlabeled.train_on == "altered":
            rows |= self._altered(rows, seed)
        return as_examples(chosen, rows, weight, closed=closed)

    def picked(self, chosen: AcceptedGuesses) -> Picked:
        """The same as counts, with what the file's own labels say of it."""
        right = {
            one.id: TASKS[self.task].right(one.answer, self.pool.truths[one.id])
            for one in chosen.taken
            if one.id in self.pool.truths
        }
        return Picked(len(chosen.taken), chosen.by_label, chosen.left, real_precision(right))

    def _altered(self, rows: Mapping[str, Example], seed: int) -> dict[str, Example]:
        """A version of each row that has one, by the operations in turn; under the row's own id."""
        count = len(self.recipe.unlabeled.operations)
        made = altered(self.recipe, tuple(rows.values()), count, seed=seed)
        return {
            row.id: replace(own[place % len(own)], id=row.id, origin=row.origin)
            for place, (row, own) in enumerate(zip(rows.values(), made, strict=True))
            if own
        }

    def _made_of(self, stage: Stage, added: Sequence[Example], recipe: Recipe) -> str:
        """What tells a tuning from others of its stage: all it learns from, and all it answers."""
        fold = self.parts[stage.fold]
        parts = (fold.train, added, fold.validation, self.pool.rows.values())
        longer = [f"{recipe.tune.passes} epochs"] if stage.longer else []
        return " ".join([*map(fingerprint, parts), *(str(e.weight) for e in added), *longer])

    def _tune(self, stage: Stage, added: Sequence[Example], recipe: Recipe) -> Told:
        began = time.perf_counter()
        fold, rows = self.parts[stage.fold], tuple(self.pool.rows.values())
        teaches = stage.round < self.recipe.unlabeled.rounds and not stage.longer
        with self.bench.tuned(recipe, fold, stage.seed, added) as (session, tuning):
            held, kept, model = fold.validation, self.bench.kept(session), session.tunable.model
            said = session.answer(model, held, "validating", kept=kept).predictions
            guesses = guess(session, (*held, *rows), kept) if teaches else ()
            spent = tuning.tokens, session.spent.generated
        return Told(
            scores=scores_by_id(self.task, held, said),
            predictions=dict(zip((e.id for e in held), said, strict=True)),
            held_out={e.id: g for e, g in zip(held, guesses[: len(held)], strict=False)},
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


def outcome(training: SelfTraining, progress: Progress) -> PseudoLabelled:
    """Round after round, as long as each is kept; the last that is counts."""
    settings, pool = training.recipe.unlabeled, training.pool
    rounds: list[SelfTrainingRound] = []
    models: Models = {}
    for number in range(1, settings.rounds + 1):
        rounds.append(one_round(training, number, models, progress))
        if not rounds[-1].kept:
            break
    kept = [one for one in rounds if one.kept]
    found = PseudoLabels(
        file=str(settings.file),
        rows=pool.total,
        left=pool.left,
        looked_at=len(pool.rows),
        target=settings.target_precision,
        rounds=tuple(rounds),
        kept=len(kept),
        cost=training.cost,
    )
    return _on_the_whole(training, kept, found) if kept else PseudoLabelled(found)


def one_round(
    training: SelfTraining, number: int, models: Models, progress: Progress
) -> SelfTrainingRound:
    """Each seed's models of the round before label, others are tuned on that, and both compared.

    `models` are those of the rounds before; this round's are added. All are compared on the same
    out-of-fold examples. More examples in as many epochs are more steps, which may gain something
    by themselves: so they are also compared with as many steps without pseudo-labels. Stops after
    the first seed where no confidence is supported, or where it is no better than either: the other
    seeds could hardly make that a sure gain, and no gain is believed that is not sure.
    """
    folds, settings = training.folds, training.recipe.unlabeled
    seeds: list[SeedOfRound] = []
    compared: list[tuple[dict[str, float], ...]] = []
    for seed in settings.seeds:
        stages = [Stage(number, fold.number, seed) for fold in folds]
        if seed not in models:
            models[seed] = [[training.tuned(replace(stage, round=0)) for stage in stages]]
        plain, teachers = models[seed][0], models[seed][-1]
        trusted = training.trusted(teachers)
        accepted = [training.accepted(teacher, trusted, seed) for teacher in teachers]
        students = list(map(training.retrained, stages, accepted, plain))
        models[seed].append(students)
        before, after = _out_of_fold(teachers), _out_of_fold(students)
        picked = tuple(map(training.picked, accepted))
        one = SeedOfRound(seed, trusted, picked, _mean(before), _mean(after))
        if seeds or not _hopeless(one, settings.target_precision):
            longer = _out_of_fold(list(map(training.control, stages, plain, students)))
            compared.append((before, after, longer))
            one = replace(one, longer=_mean(longer))
        seeds.append(one)
        progress.say(f"round {number}, seed {seed}: {_seed_line(one)}")
        if len(seeds) == 1 and (why := _hopeless(one, settings.target_precision)):
            return SelfTrainingRound(number, tuple(seeds), False, why)
    return _decided(number, seeds, *map(Trials, zip(*compared, strict=True)))


def _on_the_whole(
    training: SelfTraining, kept: Sequence[SelfTrainingRound], found: PseudoLabels
) -> PseudoLabelled:
    """The same rounds on all of the training part; the last one's pseudo-labels are used."""
    seed = training.recipe.unlabeled.seeds[0]
    teacher = plain = training.tuned(Stage(0, training.whole, seed))
    for one in kept[:-1]:
        chosen = training.accepted(teacher, one.seeds[0].trust, seed)
        teacher = training.retrained(Stage(one.number, training.whole, seed), chosen, plain)
    trusted = kept[-1].seeds[0].trust
    chosen = training.accepted(teacher, trusted, seed)
    confidences = {one.id: one.confidence for one in chosen.taken}
    found = replace(found, chosen=training.picked(chosen), trust=trusted, cost=training.cost)
    return PseudoLabelled(found, training.examples(chosen, seed), confidences)


def _out_of_fold(models: Sequence[Told]) -> dict[str, float]:
    """How well each training example is answered by its fold's model."""
    return {id: score for told in models for id, score in told.scores.items()}


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


def _hopeless(first: SeedOfRound, target: float) -> str:
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
