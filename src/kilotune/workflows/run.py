"""The whole job, stage by stage: from a labelled file to a judged adapter."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kilotune import distributed
from kilotune.augmentation.policy import Augmented
from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError, some
from kilotune.evaluation.evidence import PairedTest, sign_test
from kilotune.evaluation.forgetting import Forgetting
from kilotune.evaluation.judgement import Judgement, quick_metrics
from kilotune.evaluation.label_errors import contradicted, labels_doubted, numbers
from kilotune.evaluation.preference import Preference
from kilotune.evaluation.task_metrics import TASKS, TITLES, UNREADABLE
from kilotune.evaluation.verdict import Observed, Verdict, decide, decide_unvalidated, remarks_on
from kilotune.exports import describe
from kilotune.models.gguf import is_gguf
from kilotune.models.pretrained import check_weights, locate, sees_images
from kilotune.models.quantisation import check_quantisable
from kilotune.models.sharding import of_the_leader
from kilotune.models.size import check_answers, check_trained, read_config
from kilotune.models.streaming import streamed_layers
from kilotune.models.tree import module_tree, tree_lines
from kilotune.models.tuned_weights import tuned_folder
from kilotune.preparation.prepare import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.recipe.advice import advised
from kilotune.recipe.difference import binding_settings
from kilotune.recipe.schema import Recipe
from kilotune.reports.build import build_report
from kilotune.runs import record, trackers
from kilotune.runs.cost import Cost
from kilotune.runs.documents import (
    DataDocument,
    EnvironmentDocument,
    FindingsDocument,
    JudgedEnvironmentDocument,
)
from kilotune.runs.outcomes import (
    FreezeProofDocument,
    JudgementDocument,
    PseudoLabels,
    PseudoLabelsDocument,
    VerdictDocument,
)
from kilotune.runs.record import RunFolder, create_run
from kilotune.self_training.pool import Pool
from kilotune.self_training.rounds import (
    PseudoLabelled,
    joined,
    labelled,
    open_pool,
    pseudo_labelled,
)
from kilotune.session.llm_judge import check_judge, preference
from kilotune.session.loading import base_identity, check_base, open_session
from kilotune.session.model_session import Answers, Judged, Session, references
from kilotune.session.training_augmentation import augmented, check_record, write_record
from kilotune.training.trainer import check_trackers
from kilotune.training.tuning import Tuning
from kilotune.workflows.decode import DecodingTask, save_choice, search

# Examples and their label probabilities, shape (examples, labels), by the tuned model.
Scored = tuple[tuple[Example, ...], NDArray[np.float64]] | None


@dataclass(frozen=True, slots=True)
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


def run(recipe: Recipe, out: Path | None = None, progress: Progress | None = None) -> Run:
    """Do the whole job of `recipe` in a new folder (`out`, else one under `runs/`).

    Nothing is written before the data and the model's name are known to be usable. Raises
    KilotuneError for unusable input; after Ctrl-C during training a checkpoint is there to
    `resume` from.
    """
    progress = progress or Silent()
    if out is not None and distributed.leads():
        record.check_new(out)
    return start(prepare(recipe, progress), out, progress)


def start(prepared: Prepared, out: Path | None = None, progress: Progress | None = None) -> Run:
    """The rest of `run`, of data that were read and checked before."""
    progress = progress or Silent()
    recipe = prepared.recipe
    source = locate_model(prepared, progress)
    check_weights(source, recipe.model)
    check_quantisable(source, recipe.model, recipe.tune)
    check_trained(source, recipe.model, recipe.tune)
    check_trackers(recipe.tune.report_to)
    pool = open_pool(prepared, progress)
    more, added = augmented(clean(prepared, progress), progress)
    base = base_identity(recipe, source)
    folder = _new_folder(out, recipe.data.train.stem)
    with folder.writing(), _kept(folder, progress):
        folder.write_recipe(recipe)
        _begin(folder, more, added, base)
        return _go_on(prepared, more, pool, source, folder, progress)


def resume(path: Path, progress: Progress | None = None, *, trust_code: bool = False) -> Run:
    """Go on with the stopped run in `path`, from its last whole checkpoint.

    Of one that is judged only the report is made. Raises KilotuneError when it is finished already,
    when its data, its model or its recipe have changed, and for code that its recipe names unless
    `trust_code`.
    """
    folder = RunFolder(path)
    recipe = folder.read_recipe(trust_code=trust_code)
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
    if begun := (folder / record.DATA).exists():
        _check_known(folder)
        _check_unchanged(folder, prepared, progress)
    source = locate_model(prepared, progress)
    check_base(folder, recipe, source)
    pool = open_pool(prepared, progress)
    more, added = augmented(clean(prepared, progress), progress)
    if begun:
        check_record(folder, added)
    with folder.writing(), _kept(folder, progress):
        if not begun:
            _begin(folder, more, added, base_identity(recipe, source))
        if not (folder / record.ENVIRONMENT).exists():
            folder.write(record.environment())
        return _go_on(prepared, more, pool, source, folder, progress)


def _begin(
    folder: RunFolder, more: Prepared, added: Augmented | None, base: Mapping[str, str]
) -> None:
    """The first records. That of the data comes last: with it, a run has begun."""
    folder.note_identity(settings=binding_settings(more.recipe), **base)
    write_record(folder, added)
    folder.write(record.environment())
    folder.write(more.record())


@contextmanager
def _kept(folder: RunFolder, progress: Progress) -> Iterator[None]:
    """Say how to go on with what is stopped inside the `with`."""
    try:
        yield
    except KeyboardInterrupt:
        progress.say(f"Stopped; go on with: {advised('resume', folder.path)}")
        raise


def _check_known(folder: RunFolder) -> None:
    """Raise KilotuneError for a run of which it is not on record what it is of."""
    if not folder.read_identity():
        raise KilotuneError(
            f"started by an earlier version of kilotune, without {record.IDENTITY}: whether its "
            "model and its checkpoints are what they were cannot be checked",
            where=str(folder.path),
            fix="Resume it with that version, or run it again: "
            f"{advised('run', folder / record.RECIPE)}",
        )


def _check_unchanged(folder: RunFolder, prepared: Prepared, progress: Progress) -> None:
    """Raise KilotuneError for other data than the run's; say so if the code is another's."""
    if prepared.fingerprint != folder.read(DataDocument).fingerprint:
        again = advised("run", folder / record.RECIPE)
        raise KilotuneError(
            "the data have changed since the run began",
            where=str(prepared.recipe.data.train),
            fix=f"Restore them, or start a new run: {again}",
        )
    known = folder.read_if_there(EnvironmentDocument)
    if known and known.code != record.code_digest():
        progress.say("warning: the run was started by a different version of kilotune")


def _reported(folder: RunFolder, recipe: Recipe, progress: Progress) -> Run:
    """A run that is judged, with the report that it lacks."""
    progress.stage("The run is judged already: only its report is made")
    with folder.writing():
        _publish(folder, progress)
    run = open_run(folder.path)
    with trackers.tracked(recipe.tune.report_to, folder.path.name, recipe):
        _note(run, recipe)
    return run


def open_run(path: Path) -> Run:
    """The finished run in the folder `path`, as `run` returned it, from its records.

    Raises KilotuneError where it is not finished, or a record is damaged.
    """
    folder = RunFolder(path)
    folder.check_finished()
    judged = folder.read(JudgementDocument)
    pseudo = folder.read_if_there(PseudoLabelsDocument)
    return Run(
        folder=path,
        verdict=folder.read(VerdictDocument).verdict,
        judgements=judged.test,
        tuned_against_base=judged.tuned_against_base,
        forgetting=judged.forgetting,
        preference=judged.preference,
        weights=tuned_folder(path),
        report=folder / record.REPORT,
        pseudo_labels=pseudo.outcome if pseudo else None,
    )


def _go_on(
    prepared: Prepared,
    more: Prepared,
    pool: Pool | None,
    source: str,
    folder: RunFolder,
    progress: Progress,
) -> Run:
    """All that is left: `prepared` is of the data as they were read, `more` with augmentation."""
    found = None
    if pool is not None:
        found = pseudo_labelled(prepared, pool, source, folder, progress)
        more = joined(more, found)
        folder.write(more.record())
    with trackers.tracked(prepared.recipe.tune.report_to, folder.path.name, prepared.recipe):
        run = _run_stages(more, source, folder, progress, found)
        _note(run, prepared.recipe)
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


def locate_model(prepared: Prepared, progress: Progress) -> str:
    """Where the model is; raises KilotuneError for images where it takes none.

    And where the recipe names a judge that cannot be asked, which is needed hours later.
    """
    check_judge(prepared)
    recipe, pictured = prepared.recipe, prepared.pictured
    if is_gguf(recipe.model.name):
        progress.say(f"{recipe.model.name}: dequantised to float32, once, into the cache")
    source = locate(recipe.model)
    check_answers(recipe.model, recipe.decoding)
    if pictured and not sees_images(read_config(recipe.model)):
        raise KilotuneError(
            f"examples with images ({len(pictured)}: {some(pictured)}), and a model of texts alone",
            where=recipe.model.name,
            fix="Give a vision-language model, such as Qwen2-VL's: model.name=FOLDER",
        )
    return source


def _new_folder(out: Path | None, name: str) -> RunFolder:
    """What the leader makes; processes that train together all know it."""
    made = create_run(out, name).path if distributed.leads() else Path()
    return RunFolder(Path(of_the_leader(str(made))))


def _run_stages(
    prepared: Prepared,
    source: str,
    folder: RunFolder,
    progress: Progress,
    found: PseudoLabelled | None,
) -> Run:
    before = found.outcome.cost if found else Cost(0, 0, 0)
    clock = _Clock(folder, found)
    parts = prepared.parts
    progress.stage("Loading the model")
    session = open_session(prepared, source, progress)
    train, validation, cut = session.render()
    _say_findings(cut, progress)
    folder.write(FindingsDocument(findings=(*prepared.findings, *cut)))
    trained, total = session.tunable.parameter_counts()
    progress.say(f"{prepared.recipe.model.name}: training {trained:,} of {total:,} parameters")
    for line in tree_lines(module_tree(session.tunable.model)):
        progress.say(line)
    progress.say(_where(session))
    clock.lap("load")

    base = None
    if parts.validation:
        progress.stage("Baseline: the base model's own answers on validation")
        base = session.first_answers()
        progress.say(_base_line(session, base))
    clock.lap("baseline")

    progress.stage("Tuning")
    tuning = session.tune(train, validation, folder, on_save=lambda: clock.lap("tune"))
    progress.say(f"Stopped {tuning.stopped}; best at step {tuning.best_step}")
    proof = session.tunable.prove(tuning.gradients, tuning.best_step)
    progress.say(f"Unchanged: {len(proof.frozen)} frozen tensors. Moved: {len(proof.moved)}")
    folder.write(FreezeProofDocument(proof=proof))
    clock.lap("tune")

    if prepared.recipe.decoding.search:
        session = _search(session, folder, progress)
        base = session.base_answer(parts.validation) if parts.validation else None
        clock.lap("search")

    progress.stage("Judging: the held-out test is opened now, once")
    known = labelled(parts.train)  # a bag of words is not to learn from the model
    on_validation = session.judge(parts.validation, known, base) if base else None
    on_test = session.judge(parts.test, (*known, *parts.validation), scored=True)
    scored = session.label_probabilities(known)
    verdict = _verdict(session, tuning, on_validation, on_test, scored)
    late = [*_disagreement(on_test), *_doubted(scored, prepared.labels, verdict)]
    _say_findings(late, progress)
    folder.write(FindingsDocument(findings=(*prepared.findings, *cut, *late)))
    clock.lap("judge")

    progress.stage("Asking general questions, to see what was forgotten")
    forgotten = session.forgetting()
    clock.lap("forgetting")

    weights = session.save(folder)
    if prepared.recipe.judge.model:
        progress.stage("Having another model compare the answers of both")
    preferred = preference(session, on_test, progress)
    clock.lap("preference")

    tokens = {
        "trained": before.trained + tuning.tokens,
        "generated": before.generated + session.spent.generated,
    }
    folder.write(clock.environment(session, tokens))
    judged = (on_validation, on_test, forgotten, preferred)
    paired = _record(session, folder, tuning, judged, verdict)
    judgements = tuple(on_test.judgements.values())
    _publish(folder, progress)
    report = folder / record.REPORT
    return Run(
        folder.path,
        verdict,
        judgements,
        paired,
        forgotten,
        preferred,
        weights,
        report,
        found.outcome if found else None,
    )


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


def _search(session: Session, folder: RunFolder, progress: Progress) -> Session:
    """The session with the way of decoding that suits the tuned model, for base and tuned alike."""
    progress.stage("Trying ways of decoding on validation")
    prepared, prompting = session.prepared, session.prompting
    if streamed_layers(session.tunable.model):
        progress.say("not tried: every token would read the lower layers from disk")
        return session
    if not prepared.parts.validation:
        progress.say("not tried: there is no validation part to choose by")
        return session
    examples = tuple(prepared.parts.validation)
    asked = DecodingTask(session.tunable.model, prompting, prepared.task, prepared.labels, examples)
    choice = search(asked, progress)
    progress.say(f"{choice.reason} ({choice.answers} answers)")
    save_choice(folder, choice)
    return replace(session, prompting=prompting.decoding(choice.chosen))


def _verdict(
    session: Session,
    tuning: Tuning,
    on_validation: Judged | None,
    on_test: Judged,
    scored: Scored,
) -> Verdict:
    metrics = TASKS[session.prepared.task]
    closed = metrics.score is None
    metric = metrics.exact if closed else metrics.graded
    test = on_test.judgements
    remarks = remarks_on(test["tuned"], test["base"], test["tfidf"])
    train = session.judge_training().figures[metric]
    losses = logged(tuning.history, "loss")
    if on_validation is None:
        return decide_unvalidated(session.prepared.recipe, metric, train, losses, remarks)
    floor = "majority" if closed else "base"
    tuned = on_validation.judgements["tuned"]
    seen = Observed(
        metric=metric,
        train=train,
        validation=tuned.figures[metric],
        floor="always answering the commonest label" if closed else "the base model",
        gain=session.gain(on_validation, floor, "tuned"),
        over_base=session.gain(on_validation, "base", "tuned"),
        losses=losses,
        validation_losses=logged(tuning.history, "eval_loss"),
        gradients=logged(tuning.history, "grad_norm"),
        unread=tuned.unreadable / tuned.examples,
        unended=0.0 if tuned.stopped is None else 1 - tuned.stopped,
        conflicting=_conflicting(session.prepared),
        contradicted=scored
        and contradicted(numbers(scored[0], session.prepared.labels), scored[1]),
    )
    return decide(session.prepared.recipe, seen, remarks)


def logged(history: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """The values of `key` in a training log."""
    return [line[key] for line in history if key in line]


def _conflicting(prepared: Prepared) -> float:
    """The share of the examples to learn from and to choose by that contradict another."""
    parts = prepared.parts
    ids = {example.id for example in (*parts.train, *parts.validation)}
    rows = {row for f in prepared.findings if f.code == "conflicting-labels" for row in f.rows}
    return len(ids & rows) / len(ids)


def _disagreement(on_test: Judged) -> list[Finding]:
    """Where too many generated labels are not the likeliest."""
    judged = on_test.judgements["tuned"]
    return judged.calibration.findings() if judged.calibration else []


def _doubted(scored: Scored, labels: Sequence[str], verdict: Verdict) -> list[Finding]:
    """The labels that the tuned model contradicts, where it has learnt enough to be asked."""
    learnt = verdict.figures.get("gain_low", 0) > 0 or verdict.name == "unvalidated"
    if scored is None or not learnt or verdict.name in ("unstable", "template_fault"):
        return []
    return labels_doubted(scored[0], labels, scored[1])


def _record(
    session: Session,
    folder: RunFolder,
    tuning: Tuning,
    judged: tuple[Judged | None, Judged, Forgetting | None, Preference | None],
    verdict: Verdict,
) -> PairedTest:
    """Write what was found, the verdict last: it marks the run as finished."""
    on_validation, on_test, forgotten, preferred = judged
    task = session.prepared.task
    paired = sign_test(on_test.scores("base", task), on_test.scores("tuned", task))
    folder.write_predictions(_prediction_rows(on_test, task))
    if on_validation:
        folder.write_predictions(_prediction_rows(on_validation, task), record.VALIDATION)
    found = JudgementDocument(
        task=task,
        test=tuple(on_test.judgements.values()),
        validation=tuple(on_validation.judgements.values()) if on_validation else (),
        tuned_against_base=paired,
        gains=session.gains(on_test, "base", "tuned"),
        forgetting=forgotten,
        preference=preferred,
        test_opened="once, after the best checkpoint was chosen",
        tuning=replace(tuning, history=(), gradients=None),  # they are in the proof
    )
    folder.write(found)
    folder.write(VerdictDocument(verdict=verdict))
    return paired


def _prediction_rows(judged: Judged, task: Task) -> list[dict[str, object]]:
    right = {name: judged.right(name, task) for name in judged.answers}
    graded = {name: judged.scores(name, task) for name in judged.answers}
    rows = []
    for index, (example, reference) in enumerate(
        zip(judged.examples, references(judged.examples), strict=True)
    ):
        row: dict[str, object] = {
            "id": example.id,
            "prompt": _shown(example),
            "reference": reference,
        }
        for name, said in judged.answers.items():
            row[f"{name}_prediction"] = said.predictions[index]
            row[f"{name}_right"] = right[name][index]
            row[f"{name}_score"] = graded[name][index]
            if said.texts:
                row[f"{name}_output"] = said.texts[index]
        rows.append(row)
    return rows


def _shown(example: Example) -> str:
    """What the user says last, with the names of images in their places."""
    asked = next((m for m in reversed(example.messages) if m.role == "user"), None)
    parts = () if asked is None else asked.parts
    return "".join(p if isinstance(p, str) else f"[{p.source or 'image'}]" for p in parts)


def _where(session: Session) -> str:
    model = session.tunable.model
    weights = str(model.dtype).removeprefix("torch.")
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    return f"Weights in {weights} on {model.device}{threads}"


def _say_findings(findings: list[Finding], progress: Progress) -> None:
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")


def _base_line(session: Session, base: Answers) -> str:
    prepared = session.prepared
    metrics = TASKS[prepared.task]
    truth = references(prepared.parts.validation)
    figures = quick_metrics(prepared.task, truth, base.predictions, prepared.labels)
    said = ", ".join(f"{TITLES[name]} {value:.3f}" for name, value in figures.items())
    unread = sum(prediction == UNREADABLE for prediction in base.predictions)
    return f"{said}; {unread} of {len(base.predictions)} answers: {metrics.unreadable}"


class _Clock:
    """Seconds of each stage, kept in the run's `environment.json` as they come.

    Those of a run that was stopped are gone on with: a lap adds to its stage.
    """

    def __init__(self, folder: RunFolder, found: PseudoLabelled | None) -> None:
        self._folder = folder
        # The leader alone has written it, and may not have yet.
        known = folder.read(EnvironmentDocument) if folder.writes else record.environment()
        self._known, self.seconds = known, dict(known.seconds)
        if found:
            self.seconds["pseudo-labels"] = found.outcome.cost.seconds
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """The time since the last lap went to `stage`."""
        now = time.perf_counter()
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + now - self._last, 2)
        self._last = now
        self._folder.write(self._known.model_copy(update={"seconds": self.seconds}))

    def environment(self, session: Session, tokens: dict[str, int]) -> JudgedEnvironmentDocument:
        """All that `environment.json` holds in the end: when it began, what it took, and where."""
        model = session.tunable.model
        return JudgedEnvironmentDocument(
            **dict(record.environment(self._known.started, self.seconds, tokens)),
            dtype=str(model.dtype),
            device=str(model.device),
            threads=torch.get_num_threads(),
        )
