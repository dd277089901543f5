"""The stages of a run in order: loaded, asked, tuned, judged, recorded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from kilotune.data.example import Example, references
from kilotune.data.finding import Finding
from kilotune.evaluation.evidence import Figure, sign_test
from kilotune.evaluation.judgement import quick_metrics
from kilotune.evaluation.label_errors import contradicted, labels_doubted, numbers
from kilotune.evaluation.task_metrics import TASKS, TITLES, UNREADABLE
from kilotune.evaluation.verdict import Observed, Verdict, decide, decide_unvalidated, remarks_on
from kilotune.models.source import Source
from kilotune.models.streaming import streamed_layers
from kilotune.models.tree import module_tree, tree_lines
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.rendering.label_mask import Rendering
from kilotune.reports.view import system_title
from kilotune.runs.cost import Cost
from kilotune.runs.documents import (
    FindingsDocument,
)
from kilotune.runs.fitted_baselines import FittedBaselines, save_baselines
from kilotune.runs.outcomes import FreezeProofDocument
from kilotune.runs.record import RunFolder
from kilotune.self_training.rounds import PseudoLabelled, labelled
from kilotune.session.baseline_systems import BaselineSystems
from kilotune.session.fine_tuning import fine_tune, render, save
from kilotune.session.judging import (
    Judged,
    LabelProbabilities,
    first_answers,
    judge,
    judge_training,
    label_probabilities,
)
from kilotune.session.llm_judge import preference
from kilotune.session.loading import open_session
from kilotune.session.model_session import Answers, Session
from kilotune.session.out_of_fold import OutOfFold, more_folds, out_of_fold
from kilotune.session.refitting import refit, refits, refittable
from kilotune.session.retention import measure_forgetting
from kilotune.session.surveying import advise_session
from kilotune.training.tuning_result import Tuning
from kilotune.workflows.clock import Clock
from kilotune.workflows.decode import DecodingTask, save_choice, search
from kilotune.workflows.outcome import Developed, Outcome, record_outcome


def run_stages(
    prepared: Prepared,
    source: Source,
    folder: RunFolder,
    progress: Progress,
    found: PseudoLabelled | None,
) -> Outcome:
    """Load, ask, tune, judge and save; each stage leaves its record in `folder`.

    `found` is what pseudo-labelling came to, whose cost counts. Raises KilotuneError as soon as
    something cannot be gone on with.
    """
    clock = Clock(folder, found)
    with clock.lap("load"):
        session, train, validation, cut = _opened(prepared, source, folder, progress)
    with clock.lap("baseline"):
        systems = BaselineSystems(session)
        simpler = _baselines(systems, progress)
        advise_session(systems, simpler, folder)
    with clock.lap("tune"):
        tuning = _tuned(session, train, validation, folder, clock)
    if prepared.recipe.decoding.search:
        with clock.lap("search"):
            session = _search(session, folder, progress)
            systems = replace(systems, session=session)
            simpler = _answered(systems, prepared.parts.validation)[0] if simpler else {}
    with clock.lap("judge"):
        developed = _developed(session, tuning, simpler)
    beyond, refitted = None, None
    if again := refits(prepared) and refittable(session):
        with clock.lap("folds"):
            beyond = _out_of_fold(session, source, developed, folder)
        with clock.lap("refit"):
            session, refitted = _refitted(session, tuning, folder, clock)
            systems = replace(systems, session=session)
    with clock.lap("judge"):
        on_test = _tested(systems, developed.on_validation, folder)
    with clock.lap("forgetting"):
        if prepared.recipe.judge.forgetting != "never":
            progress.stage("Asking general questions, to see what was forgotten")
        forgetting = measure_forgetting(session)
    with clock.lap("preference"):
        weights = save(session, folder)
        if prepared.recipe.judge.model:
            progress.stage("Having another model compare the answers of both")
        preferred = preference(session, on_test, progress)
    if not again:
        with clock.lap("folds"):
            beyond = _out_of_fold(session, source, developed, folder)
    verdict = _verdict(session, developed, beyond, on_test)
    late = [*_disagreement(on_test), *_doubted(developed.scored, prepared.labels, verdict)]
    _say_findings(late, progress)
    folder.write(FindingsDocument(findings=(*prepared.findings, *cut, *late)))
    folder.write(clock.environment(session, tuning, _spent(beyond, refitted)))
    paired = sign_test(on_test.scores("base"), on_test.scores("tuned"))
    outcome = Outcome(
        developed, beyond, refitted, on_test, paired, verdict, forgetting, weights, preferred
    )
    record_outcome(folder, outcome)
    return outcome


def _opened(
    prepared: Prepared, source: Source, folder: RunFolder, progress: Progress
) -> tuple[Session, list[Rendering], list[Rendering], list[Finding]]:
    """The model in memory, training and validation as token ids, and what was found in them."""
    progress.stage("Loading the model")
    session = open_session(prepared, source, progress)
    train, validation, cut = render(session)
    _say_findings(cut, progress)
    folder.write(FindingsDocument(findings=(*prepared.findings, *cut)))
    _say_model(session, progress)
    return session, train, validation, cut


def _spent(beyond: OutOfFold | None, refitted: Tuning | None) -> Cost:
    """What tuning took besides the run's first."""
    folds = beyond.cost if beyond else Cost(0, 0, 0)
    return replace(folds, trained=folds.trained + (refitted.tokens if refitted else 0))


def _say_model(session: Session, progress: Progress) -> None:
    """What of the model is trained, module by module, and where it is."""
    trained, total = session.tunable.parameter_counts()
    name = session.prepared.recipe.model.name
    progress.say(f"{name}: training {trained:,} of {total:,} parameters")
    for line in tree_lines(module_tree(session.tunable.model)):
        progress.say(line)
    progress.say(_where(session))


def _baselines(systems: BaselineSystems, progress: Progress) -> dict[str, Answers]:
    """What simpler systems and the base model answer to validation; nothing where there is none."""
    session, part = systems.session, systems.session.prepared.parts.validation
    if not part:
        return {}
    progress.stage("Baselines: the base model and simpler systems, on validation")
    base = first_answers(session)
    progress.say(_line(session, "base", base))
    simpler, _ = _answered(systems, part, base)
    for name, said in simpler.items():
        if name != "base":
            progress.say(_line(session, name, said))
    return simpler


def _answered(
    systems: BaselineSystems,
    examples: Sequence[Example],
    base: Answers | None = None,
    without: Collection[str] = (),
) -> tuple[dict[str, Answers], FittedBaselines]:
    """What systems but the tuned model answer to validation or test, and what they learnt."""
    parts = systems.session.prepared.parts
    # What models made of the data, or guessed, is not for them.
    known = [example for example in parts.train if not example.origin.parent]
    if examples is parts.test:
        known += parts.validation
    base = base or systems.session.base_answer(examples)
    found, fitted = systems.answers(known, examples, without)
    return {**found, "base": base}, fitted


def _tuned(
    session: Session,
    train: Sequence[Rendering],
    validation: Sequence[Rendering],
    folder: RunFolder,
    clock: Clock,
) -> Tuning:
    """The session's model tuned, and the proof that what was frozen stayed as it was."""
    progress = session.progress
    progress.stage("Tuning")
    tuning = fine_tune(session, train, validation, folder, on_save=lambda: clock.note("tune"))
    progress.say(f"Stopped {tuning.stopped}; best at step {tuning.best_step}")
    _prove(session, tuning, folder)
    return tuning


def _prove(session: Session, tuning: Tuning, folder: RunFolder) -> None:
    """Record that what was frozen stayed as it was."""
    proof = session.tunable.prove(tuning.gradients, tuning.best_step)
    session.progress.say(
        f"Unchanged: {len(proof.frozen)} frozen tensors. Moved: {len(proof.moved)}"
    )
    folder.write(FreezeProofDocument(proof=proof))


def _developed(session: Session, tuning: Tuning, simpler: Mapping[str, Answers]) -> Developed:
    """All systems on validation; the tuned model on training examples."""
    parts = session.prepared.parts
    on_validation = judge(session, parts.validation, simpler) if simpler else None
    scored = label_probabilities(session, labelled(parts.train))
    return Developed(tuning, judge_training(session), on_validation, scored)


def _refitted(
    session: Session, chosen: Tuning, folder: RunFolder, clock: Clock
) -> tuple[Session, Tuning]:
    """A session of the final model, tuned on all that was labelled, and its proof."""
    progress, parts = session.progress, session.prepared.parts
    count = len([*parts.train, *parts.validation])
    progress.stage(
        f"Tuning the final model on all {count} examples, validation too, in the "
        f"{chosen.best_step} steps that were best"
    )
    again, tuning = refit(session, chosen, folder, on_save=lambda: clock.note("refit"))
    _prove(again, tuning, folder)
    return again, tuning


def _tested(systems: BaselineSystems, on_validation: Judged | None, folder: RunFolder) -> Judged:
    """All systems on the test; what the simpler ones learnt is kept.

    Examples in the prompt take longer to read than all else that is asked: where they surely lose
    to the prompt alone they are not asked again.
    """
    session = systems.session
    session.progress.stage("Judging: the held-out test is opened now, once")
    parts = session.prepared.parts
    without = []
    if on_validation and "few_shot" in on_validation.answers:
        gain = on_validation.gain("few_shot", "base")
        if isinstance(gain, Figure) and gain.low > 0:
            session.progress.say(f"few-shot: not asked, the prompt alone is better by {gain}")
            without.append("few_shot")
    asked, fitted = _answered(systems, parts.test, without=without)
    save_baselines(folder, fitted)
    return judge(session, parts.test, asked, scored=True)


def _out_of_fold(
    session: Session, source: Source, developed: Developed, folder: RunFolder
) -> OutOfFold | None:
    """What folds say where validation is too small to judge by; the session's model is used up."""
    on_validation = developed.on_validation
    # Streamed, each token of an answer reads the lower layers from disk.
    if on_validation is None or streamed_layers(session.tunable.model):
        return None
    folds = more_folds(session.prepared, session.progress)
    if not folds:
        return None
    held = sum(len(fold.validation) for fold in folds)
    count = len(on_validation.examples)
    session.progress.stage(
        f"Tuning on {len(folds)} more fold{'s' * (len(folds) > 1)}: {count} validation examples "
        f"are few to judge by, with {held} answered out of fold they are {count + held}"
    )
    return out_of_fold(session, source, folds, developed.tuning, on_validation, folder)


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
    session: Session, developed: Developed, beyond: OutOfFold | None, on_test: Judged
) -> Verdict:
    """By what the tuned model answers to validation, or out of fold too where that was asked."""
    metrics = TASKS[session.prepared.task]
    closed = metrics.score is None
    metric = metrics.exact if closed else metrics.graded
    history, validated = developed.tuning.history, developed.on_validation
    test = on_test.judgements
    beside = {name: on_test.gain(name, "tuned") for name in test if name != "tuned"}
    remarks = remarks_on(test, beside)
    train = developed.on_training.figures[metric]
    losses = logged(history, "loss")
    if validated is None:
        return decide_unvalidated(session.prepared.recipe, metric, train, losses, remarks)
    held = beyond.judged if beyond else validated
    tuned = held.judgements["tuned"]
    ended, scored = validated.judgements["tuned"].stopped, developed.scored
    seen = Observed(
        metric=metric,
        train=train,
        validation=tuned.figures[metric],
        gain=held.gain("majority" if closed else "base", "tuned"),
        over_base=held.gain("base", "tuned"),
        losses=losses,
        validation_losses=logged(history, "eval_loss"),
        gradients=logged(history, "grad_norm"),
        unread=tuned.unreadable / tuned.examples,
        unended=0.0 if ended is None else 1 - ended,
        conflicting=_conflicting(session.prepared),
        contradicted=scored
        and contradicted(numbers(scored[0], session.prepared.labels), scored[1]),
        folds=beyond.folds if beyond else 0,
        held_out=len(held.examples),
        worsened=_worsened(session, developed.tuning),
    )
    return decide(session.prepared.recipe, seen, remarks)


def _worsened(session: Session, tuning: Tuning) -> bool:
    """Whether answers to validation surely got worse behind the best step: any dip is not that."""
    stopping = session.prepared.recipe.tune.stopping
    sure = stopping.minimum_gain == "auto" and stopping.metric != "loss"
    return sure and tuning.best_step < tuning.steps


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


def _doubted(scored: LabelProbabilities, labels: Sequence[str], verdict: Verdict) -> list[Finding]:
    """The labels that the tuned model contradicts, where it has learnt enough to be asked."""
    learnt = verdict.figures.get("gain_low", 0) > 0 or verdict.name == "unvalidated"
    if scored is None or not learnt or verdict.name in ("unstable", "template_fault"):
        return []
    return labels_doubted(scored[0], labels, scored[1])


def _where(session: Session) -> str:
    model = session.tunable.model
    weights = str(model.dtype).removeprefix("torch.")
    threads = f", {torch.get_num_threads()} threads" if model.device.type == "cpu" else ""
    return f"Weights in {weights} on {model.device}{threads}"


def _say_findings(findings: list[Finding], progress: Progress) -> None:
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")


def _line(session: Session, name: str, answers: Answers) -> str:
    """A baseline's figures on validation, in one line."""
    prepared = session.prepared
    metrics = TASKS[prepared.task]
    truth = references(prepared.parts.validation)
    figures = quick_metrics(prepared.task, truth, answers.predictions, prepared.labels)
    said = ", ".join(f"{TITLES[metric]} {value:.3f}" for metric, value in figures.items())
    if answers.texts:
        unread = sum(prediction == UNREADABLE for prediction in answers.predictions)
        said += f"; {unread} of {len(answers.predictions)} answers: {metrics.unreadable}"
    took = "" if answers.seconds is None else f" ({answers.seconds:.1f} s)"
    return f"{system_title(name, figures)}: {said}{took}"
