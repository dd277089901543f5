"""The whole job, stage by stage: from a labelled file to a judged adapter."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kilotune import processes
from kilotune.augmentation import augmented, check_record, write_record
from kilotune.data.example import Example, Task
from kilotune.data.finding import Finding
from kilotune.decoding import Asked, save_choice, search
from kilotune.errors import KilotuneError, some
from kilotune.evaluate.evidence import PairedTest, sign_test
from kilotune.evaluate.forgetting import Forgetting
from kilotune.evaluate.judgement import Judgement, quick_metrics
from kilotune.evaluate.label_errors import contradicted, labels_doubted, numbers
from kilotune.evaluate.preference import Preference
from kilotune.evaluate.tasks import TASKS, TITLES, UNREADABLE
from kilotune.evaluate.verdict import Observed, Verdict, decide, decide_unvalidated, remarks_on
from kilotune.experiments import record, trackers
from kilotune.experiments.cost import Cost
from kilotune.experiments.record import RunFolder, create_run
from kilotune.export import describe
from kilotune.judge_model import check_judge, preference
from kilotune.models.gguf import is_gguf
from kilotune.models.load import check_weights, locate, sees_images
from kilotune.models.quantisation import check_quantisable
from kilotune.models.sharding import of_the_leader
from kilotune.models.size import check_trained, read_config
from kilotune.models.streaming import streamed_layers
from kilotune.models.tree import module_tree, tree_lines
from kilotune.opening import open_session
from kilotune.preparation import Prepared, clean, prepare
from kilotune.progress import Progress, Silent
from kilotune.pseudo_labels import PseudoLabels, joined, labelled, open_pool, pseudo_labelled
from kilotune.recipe.schema import Recipe
from kilotune.report.build import build_report
from kilotune.session import Answers, Judged, Session, references
from kilotune.train.trainer import Tuning
from kilotune.unlabelled import Pool

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
    if out is not None and processes.leads():
        record.check_new(out)
    return start(prepare(recipe, progress), out, progress)


def start(prepared: Prepared, out: Path | None = None, progress: Progress | None = None) -> Run:
    """The rest of `run`, of data that were read and checked before."""
    progress = progress or Silent()
    recipe = prepared.recipe
    source = locate_model(prepared, progress)
    check_weights(source)
    check_quantisable(source, recipe.model, recipe.tune)
    check_trained(source, recipe.model, recipe.tune)
    pool = open_pool(prepared, progress)
    more, added = augmented(clean(prepared, progress), progress)
    folder = _new_folder(out, recipe.data.train.stem)
    with folder.writing():
        folder.write_recipe(recipe)
        folder.write_json(record.DATA, more.record())
        write_record(folder, added)
        folder.write_json(record.ENVIRONMENT, record.environment(seconds={}))
        try:
            return _go_on(prepared, more, pool, source, folder, progress)
        except KeyboardInterrupt:
            progress.say(f"Stopped; go on with: kilotune resume {folder.path}")
            raise


def resume(path: Path, progress: Progress | None = None) -> Run:
    """Go on with the stopped run in `path`, from its last checkpoint.

    Raises KilotuneError when it is finished already, or when its data have changed.
    """
    folder = RunFolder(path)
    recipe = folder.read_recipe()
    again = f"kilotune run {path / record.RECIPE}"
    if folder.finished:
        raise KilotuneError("the run is finished", where=str(path), fix=f"Start another: {again}")
    progress = progress or Silent()
    prepared = prepare(recipe, progress)
    if prepared.fingerprint != folder.read_json(record.DATA)["fingerprint"]:
        raise KilotuneError(
            "the data have changed since the run began",
            where=str(recipe.data.train),
            fix=f"Restore them, or start a new run: {again}",
        )
    known = (folder / record.ENVIRONMENT).exists()
    if known and folder.read_json(record.ENVIRONMENT).get("code") != record.code_digest():
        progress.say("warning: the run was begun by other code of kilotune")
    source = locate_model(prepared, progress)
    pool = open_pool(prepared, progress)
    more, added = augmented(clean(prepared, progress), progress)
    check_record(folder, added)
    with folder.writing():
        return _go_on(prepared, more, pool, source, folder, progress)


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
        folder.write_json(record.DATA, more.record())
    told = prepared.recipe.tune.report_to
    with trackers.tracked(told, folder.path.name, prepared.recipe):
        run = _run_stages(more, source, folder, progress, found)
        figures = {
            f"test.{judged.name}.{name}": figure.value
            for judged in run.judgements
            for name, figure in judged.figures.items()
        }
        trackers.note(told, figures, [folder / record.RECIPE, folder / record.VERDICT, run.report])
    return run


def locate_model(prepared: Prepared, progress: Progress) -> str:
    """Where the model is; raises KilotuneError for images where it takes none.

    And where the recipe names a judge that cannot be asked, which is needed hours later.
    """
    check_judge(prepared)
    recipe, pictured = prepared.recipe, prepared.pictured
    if is_gguf(recipe.model.name):
        progress.say(f"{recipe.model.name}: dequantised to float32, once, into the cache")
    source = locate(recipe.model)
    if pictured and not sees_images(read_config(recipe.model)):
        raise KilotuneError(
            f"examples with images ({len(pictured)}: {some(pictured)}), and a model of texts alone",
            where=recipe.model.name,
            fix="Give a vision-language model, such as Qwen2-VL's: model.name=FOLDER",
        )
    return source


def _new_folder(out: Path | None, name: str) -> RunFolder:
    """What the leader makes; processes that train together all know it."""
    made = create_run(out, name).path if processes.leads() else Path()
    return RunFolder(Path(of_the_leader(str(made))))


def _run_stages(
    prepared: Prepared,
    source: str,
    folder: RunFolder,
    progress: Progress,
    found: PseudoLabels | None,
) -> Run:
    before = found.cost if found else Cost(0, 0, 0)
    clock = _Clock({"pseudo-labels": before.seconds} if found else {})
    parts = prepared.parts
    progress.stage("Loading the model")
    session = open_session(prepared, source, progress)
    train, validation, cut = session.render()
    _say_findings(cut, progress)
    folder.write_json(record.FINDINGS, [*prepared.findings, *cut])
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
    tuning = session.tune(train, validation, folder)
    progress.say(f"Stopped {tuning.stopped}; best at step {tuning.best_step}")
    proof = session.tunable.prove(tuning.gradients, tuning.best_step)
    progress.say(f"Unchanged: {len(proof.frozen)} frozen tensors. Moved: {len(proof.moved)}")
    folder.write_json(record.PROOF, proof)
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
    folder.write_json(record.FINDINGS, [*prepared.findings, *cut, *late])
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
    folder.write_json(record.ENVIRONMENT, _environment(session, clock, tokens, folder))
    judged = (on_validation, on_test, forgotten, preferred)
    paired = _record(session, folder, tuning, judged, verdict)
    judgements = tuple(on_test.judgements.values())
    if folder.writes:
        describe(folder)
    report = build_report(folder) if folder.writes else folder / record.REPORT
    return Run(
        folder.path, verdict, judgements, paired, forgotten, preferred, weights, report, found
    )


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
    asked = Asked(session.tunable.model, prompting, prepared.task, prepared.labels, examples)
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
    found = {
        "task": task,
        "test": list(on_test.judgements.values()),
        "validation": list(on_validation.judgements.values()) if on_validation else [],
        "tuned_against_base": paired,
        "gains": session.gains(on_test, "base", "tuned"),
        "forgetting": forgotten,
        "preference": preferred,
        "test_opened": "once, after the best checkpoint was chosen",
        "tuning": replace(tuning, history=(), gradients=None),  # they are in the proof
    }
    folder.write_json(record.JUDGEMENT, found)
    folder.write_json(record.VERDICT, verdict)
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


def _environment(
    session: Session, clock: "_Clock", tokens: dict[str, int], folder: RunFolder
) -> dict[str, object]:
    model, known = session.tunable.model, (folder / record.ENVIRONMENT).exists()
    began = {"started": folder.read_json(record.ENVIRONMENT)["started"]} if known else {}
    return record.environment(
        **began,
        dtype=str(model.dtype),
        device=str(model.device),
        threads=torch.get_num_threads(),
        seconds=clock.seconds,
        tokens=tokens,
    )


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
    """Seconds of each stage, behind those `before`."""

    def __init__(self, before: dict[str, float]) -> None:
        self.seconds = before
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 2)
        self._last = now
