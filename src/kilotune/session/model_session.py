"""A loaded model and what it answers: the same questions before and after tuning."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kilotune.data.example import Example
from kilotune.evaluation.evidence import Resampling
from kilotune.evaluation.task_metrics import reader
from kilotune.generation.answer import Prompting
from kilotune.generation.kept import KeptStates
from kilotune.generation.score import LabelScores
from kilotune.models.freeze import Tunable
from kilotune.models.pretrained import Model
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress

# Tokens of all labels together that are scored behind each text rather than an answer generated.
FEW_LABEL_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system's answers to some examples were read as; what it said, as texts and as
    `token_ids`, and where it stopped by itself. `scores` are those of closed labels, where they
    were asked for; `seconds` are what learning and answering took, where that was measured.
    """

    predictions: tuple[str, ...]
    texts: tuple[str, ...] = ()
    stopped: tuple[bool, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] = ()
    scores: tuple[LabelScores, ...] = ()
    seconds: float | None = None


@dataclass(slots=True)
class Spent:
    """Tokens that a session's model has answered with, be they generated or read off scores."""

    generated: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A run's model in memory, with the data and the wording it is asked about."""

    prepared: Prepared
    prompting: Prompting
    tunable: Tunable
    progress: Progress
    spent: Spent = field(default_factory=Spent)

    def answer(
        self,
        model: Model,
        examples: Sequence[Example],
        title: str,
        *,
        scored: bool = False,
        kept: KeptStates | None = None,
    ) -> Answers:
        """What `model` generates for `examples`, and what its answers are read as.

        With `scored` the closed labels' scores too. `kept` are states of models with the same
        frozen layers: scores start from them, and say what is answered if labels are few.
        """
        scored = scored or (kept is not None and self._few_labels())
        labels = self.prepared.labels if scored else ()
        said, scores = self.prompting.scored_answers(
            model, examples, labels, self.progress, title, kept
        )
        self.spent.generated += sum(answer.tokens for answer in said)
        read = reader(self.prepared.task, self.prepared.labels, self.prompting.wording)
        return Answers(
            predictions=tuple(read(answer.text) for answer in said),
            texts=tuple(answer.text for answer in said),
            stopped=tuple(answer.stopped for answer in said),
            token_ids=tuple(answer.token_ids for answer in said),
            scores=tuple(scores),
        )

    def base_answer(self, examples: Sequence[Example]) -> Answers:
        """What the model as it came generates for `examples`."""
        with self.tunable.as_base() as model:
            return self.answer(model, examples, "base model")

    @property
    def resampling(self) -> Resampling:
        """How intervals are bootstrapped, as the recipe says."""
        recipe = self.prepared.recipe
        return {"samples": recipe.judge.bootstrap_samples, "seed": recipe.seed}

    def _few_labels(self) -> bool:
        """Whether the scores of all labels take less than a generated answer."""
        told = self.prompting.wording.told(self.prepared.labels)
        tokens = sum(len(self.prompting.template.encode(label)) for label in told)
        return tokens <= FEW_LABEL_TOKENS
