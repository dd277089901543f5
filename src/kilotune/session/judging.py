"""Every system on the same examples: baselines, the model as it came, and the tuned one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import Example, Task, references
from kilotune.errors import KilotuneError
from kilotune.evaluation.calibration import calibration
from kilotune.evaluation.evidence import Estimate, Resampling, macro_f1_gain, paired_gain
from kilotune.evaluation.health import Health, broken, faults, health
from kilotune.evaluation.judgement import Judgement, judge_system, scores
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE
from kilotune.models.streaming import streamed_layers
from kilotune.session.model_session import Answers, Session

# Examples and their label probabilities, shape (examples, labels), by the tuned model.
LabelProbabilities = tuple[tuple[Example, ...], NDArray[np.float64]] | None


@dataclass(frozen=True, slots=True)
class Judged:
    """Every system's answers to the same examples of a task, and their figures.

    `labels` are the task's, where they are closed; intervals are bootstrapped by `resampling`.
    """

    examples: tuple[Example, ...]
    answers: dict[str, Answers]
    judgements: dict[str, Judgement]
    task: Task
    labels: tuple[str, ...]
    resampling: Resampling

    def right(self, name: str) -> list[bool]:
        """Which answers of the system `name` are right."""
        pairs = zip(self.answers[name].predictions, references(self.examples), strict=True)
        return [TASKS[self.task].right(prediction, reference) for prediction, reference in pairs]

    def scores(self, name: str) -> list[float]:
        """How well each answer of the system `name` agrees with its reference, in [0, 1]."""
        return scores(self.task, references(self.examples), self.answers[name].predictions)

    def gain(self, before: str, after: str) -> Estimate:
        """How much the system `after` scores above `before` on the same examples."""
        return paired_gain(self.scores(before), self.scores(after), **self.resampling)

    def gains(self, before: str, after: str) -> dict[str, Estimate]:
        """The same of the task's two figures, by name."""
        metrics = TASKS[self.task]
        right = [list(map(float, self.right(name))) for name in (before, after)]
        exact = paired_gain(right[0], right[1], **self.resampling)
        if metrics.score is not None:
            return {metrics.exact: exact, metrics.graded: self.gain(before, after)}
        graded = macro_f1_gain(
            references(self.examples),
            self.answers[before].predictions,
            self.answers[after].predictions,
            self.labels,
            **self.resampling,
        )
        return {metrics.exact: exact, metrics.graded: graded}


def judge(
    session: Session,
    examples: Sequence[Example],
    simpler: Mapping[str, Answers],
    *,
    scored: bool = False,
) -> Judged:
    """The tuned model on `examples`, beside what `simpler` systems answered to them.

    Where labels are closed and `scored`, the tuned model's probabilities of them are judged.
    """
    prepared = session.prepared
    scored = scored and prepared.task == "classify"
    tuned = session.answer(session.tunable.model, examples, "tuned model", scored=scored)
    answers = {**simpler, "tuned": tuned}
    found = judged(session, examples, answers)
    if scored:
        calibrated = calibration(
            np.array([one.probabilities for one in tuned.scores]),
            references(examples),
            tuned.predictions,
            prepared.labels,
            [example.id for example in examples],
            **session.resampling,
        )
        found.judgements["tuned"] = replace(found.judgements["tuned"], calibration=calibrated)
    return found


def judged(session: Session, examples: Sequence[Example], answers: Mapping[str, Answers]) -> Judged:
    """The figures of every system's `answers` to `examples`."""
    figures = {name: _figures(session, name, examples, said) for name, said in answers.items()}
    task, labels = session.prepared.task, session.prepared.labels
    return Judged(tuple(examples), dict(answers), figures, task, labels, session.resampling)


def judge_training(session: Session) -> Judgement:
    """The tuned model on a sample of its own training examples, asked in the same way."""
    recipe, parts = session.prepared.recipe, session.prepared.parts
    train = [example for example in parts.train if not example.origin.parent]
    # Drawn, since a file is often sorted by label.
    size = min(recipe.judge.train_sample, len(train))
    sample = random.Random(recipe.seed).sample(train, size)
    said = session.answer(session.tunable.model, sample, "training sample")
    return _figures(session, "train", sample, said)


def label_probabilities(session: Session, known: Sequence[Example]) -> LabelProbabilities:
    """Those of `known` that were read and of validation, with the tuned model's probabilities.

    None where there are no labels, or layers are streamed.
    """
    prepared, model = session.prepared, session.tunable.model
    if prepared.task != "classify" or streamed_layers(model):
        return None
    read = [example for example in known if not example.origin.parent]
    examples, title = (*read, *prepared.parts.validation), "looking at the labels"
    scored = session.prompting.scores(model, examples, prepared.labels, session.progress, title)
    return examples, np.array([one.probabilities for one in scored])


def first_answers(session: Session) -> Answers:
    """What the model as it came generates for the validation examples.

    Raises KilotuneError where it cannot generate at all; by `judge.base_check` that is said
    alone, as is what else is odd.
    """
    examples = session.prepared.parts.validation
    with session.tunable.as_base() as model:
        if not session.prompting.finite(model, examples[0]):
            _unable(session, "its logits are not finite")
    said = session.base_answer(examples)
    found = _health(session, examples, said)
    if why := broken(said.texts, found):
        _unable(session, why)
    for fault in faults(found):
        session.progress.say(f"base model: {fault}")
    return said


def _unable(session: Session, what: str) -> None:
    settings = session.prepared.recipe
    error = KilotuneError(
        f"the pretrained model does not generate: {what}",
        where=settings.model.name,
        fix="Look at the prompts (kilotune render) and at the model's card; try another "
        "--chat-template, or --set model.precision=float32. To tune it all the same: "
        "--set judge.base_check=say",
    )
    if settings.judge.base_check == "stop":
        raise error
    session.progress.say(f"warning: {error.what}")


def _figures(session: Session, name: str, examples: Sequence[Example], said: Answers) -> Judgement:
    """The figures of one system's answers."""
    return judge_system(
        name,
        session.prepared.task,
        references(examples),
        said.predictions,
        session.prepared.labels,
        health=_health(session, examples, said) if said.texts else None,
        own=session.prepared.recipe.judge.metric,
        settings=session.resampling,
    )


def _health(session: Session, examples: Sequence[Example], said: Answers) -> Health:
    """How the answers to `examples` came out as texts."""
    return health(
        said.texts,
        stopped=said.stopped,
        unread=[prediction == UNREADABLE for prediction in said.predictions],
        prompts=[session.prompting.asked(example) for example in examples],
        references=session.prompting.wording.told(references(examples)),
    )
