"""What simple systems answer to a task's examples before anything is tuned."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kilotune.data.example import Task
from kilotune.data.finding import Finding
from kilotune.evaluation.evidence import Estimate, Resampling, macro_f1_gain, paired_gain
from kilotune.evaluation.judgement import judge_system, scores
from kilotune.evaluation.label_errors import Contradicted
from kilotune.evaluation.learning_curve import LearningCurve
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE

# Shuffles that answers are held against, and how seldom they may do as well by chance.
SHUFFLES, CHANCE = 999, 0.01


@dataclass(frozen=True, slots=True)
class SystemSurvey:
    """What one system comes to on the examples that it was asked: the task's two figures.

    `unread` counts answers that named no label, or could not be read otherwise.
    """

    name: str
    examples: int
    figures: dict[str, Estimate]
    unread: int


@dataclass(frozen=True, slots=True)
class Survey:
    """The answers to training and validation examples of systems that had not seen their labels.

    `truth` has all examples by id, `answers` those that each system was asked, the simplest first.
    `labels` are those of a closed task. `contradicted` says how often the system of that name finds
    another label likelier than the given one.
    """

    task: Task
    labels: tuple[str, ...]
    truth: Mapping[str, str]
    answers: Mapping[str, Mapping[str, str]]
    resampling: Resampling
    curves: Mapping[str, LearningCurve] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    contradicted: Mapping[str, Contradicted] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The finer of the task's two figures, by which systems are compared."""
        return TASKS[self.task].graded

    @property
    def counts(self) -> dict[str, int]:
        """How many examples each label has, the rarest first."""
        return dict(sorted(Counter(self.truth.values()).items(), key=lambda one: (one[1], one[0])))

    def systems(self) -> tuple[SystemSurvey, ...]:
        """Every system's figures."""
        return tuple(self.system(name) for name in self.answers)

    def system(self, name: str) -> SystemSurvey:
        """The figures of one system."""
        said = list(self.answers[name].values())
        judged = judge_system(
            name, self.task, self._truth(name), said, self.labels, settings=self.resampling
        )
        return SystemSurvey(name, len(said), judged.figures, judged.unreadable)

    def gain(self, before: str, after: str) -> Estimate:
        """How much the system `after` is above `before`, on the examples that both were asked."""
        ids = [id for id in self.answers[before] if id in self.answers[after]]
        truth = [self.truth[id] for id in ids]
        first, second = ([self.answers[name][id] for id in ids] for name in (before, after))
        if self.task == "classify":
            return macro_f1_gain(truth, first, second, self.labels, **self.resampling)
        graded = [scores(self.task, truth, said) for said in (first, second)]
        return paired_gain(graded[0], graded[1], **self.resampling)

    def informed(self, name: str) -> bool:
        """Whether a system's labels are right more often than the same ones shuffled.

        A permutation test (Good 2005): unlike a figure beside that of the commonest label, it is
        fair to systems that give rare labels their due.
        """
        codes = {label: code for code, label in enumerate((*self.labels, UNREADABLE))}
        truth = np.array([codes[label] for label in self._truth(name)])
        said = np.array([codes[label] for label in self.answers[name].values()])
        rng = np.random.default_rng(self.resampling["seed"])
        hits = (truth == said).sum()
        by_chance = sum((truth == rng.permutation(said)).sum() >= hits for _ in range(SHUFFLES))
        return bool((1 + by_chance) / (1 + SHUFFLES) < CHANCE)

    def _truth(self, name: str) -> list[str]:
        return [self.truth[id] for id in self.answers[name]]
