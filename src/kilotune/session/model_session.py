"""A loaded model and all that is asked of it: the same questions before and after tuning."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kilotune.augmentation.epochs import rounds_of
from kilotune.data.example import Example, Message, Origin, Task
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.errors import KilotuneError
from kilotune.evaluation.baselines import majority, nearest, tfidf
from kilotune.evaluation.calibration import Calibration, calibration
from kilotune.evaluation.evidence import Estimate, Resampling, macro_f1_gain, paired_gain
from kilotune.evaluation.forgetting import (
    ANSWER_TOKENS,
    Forgetting,
    GeneralPrompt,
    forgetting,
    general_prompts,
)
from kilotune.evaluation.health import Health, broken, faults, health
from kilotune.evaluation.judgement import (
    Judgement,
    example_scores,
    judge_system,
    quick_metrics,
    scores,
)
from kilotune.evaluation.task_metrics import TASKS, UNREADABLE, reader
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import Generation
from kilotune.generation.divergence import apart
from kilotune.generation.kept import KeptStates
from kilotune.generation.score import LabelScores
from kilotune.models.freeze import Tunable
from kilotune.models.identity import tuned_digest
from kilotune.models.pretrained import Model
from kilotune.models.public import name_base
from kilotune.models.streaming import streamed_layers
from kilotune.models.tuned_weights import save_tuned
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.rendering.renderings import render_examples
from kilotune.runs.record import CHECKPOINTS, RunFolder
from kilotune.training.tuning import Hooks, TuningJob, tune
from kilotune.training.tuning_result import Tuning

# Tokens of all labels together that are scored behind each text rather than an answer generated.
FEW_LABEL_TOKENS = 40


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system's answers to some examples were read as; what it said, and where it stopped
    by itself. `scores` are those of closed labels, where they were asked for.
    """

    predictions: tuple[str, ...]
    texts: tuple[str, ...] = ()
    stopped: tuple[bool, ...] = ()
    scores: tuple[LabelScores, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """Every system on the same examples."""

    examples: tuple[Example, ...]
    answers: dict[str, Answers]
    judgements: dict[str, Judgement]

    def right(self, name: str, task: Task) -> list[bool]:
        """Which answers of the system `name` are right."""
        pairs = zip(self.answers[name].predictions, references(self.examples), strict=True)
        return [TASKS[task].right(prediction, reference) for prediction, reference in pairs]

    def scores(self, name: str, task: Task) -> list[float]:
        """How well each answer of the system `name` agrees with its reference, in [0, 1]."""
        return scores(task, references(self.examples), self.answers[name].predictions)


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

    def render(self) -> tuple[list[Rendering], list[Rendering], list[Finding]]:
        """Training and validation as token ids with label masks, and what was found in them.

        Raises KilotuneError when the template would train something else than what is generated.
        """
        parts = self.prepared.parts
        rendered = render_examples(
            self.prompting.template,
            self.prompting.wording,
            (*parts.train, *parts.validation),
            max_length=self.prompting.max_length,
            train_on=self.prepared.recipe.data.train_on,
            limits=self.prompting.limits,
        )
        # The test is asked last, hours too late to say that it cannot be; of training a sample.
        known = [example for example in parts.train if not example.origin.parent]
        labels = self.prepared.labels
        asked = (*(known if self.prompting.tight(labels) else ()), *parts.validation, *parts.test)
        refused = self.prompting.refusals(asked, labels)
        stop_on_errors([*rendered.findings, *refused], self.prepared.recipe.model.name)
        self.progress.say(rendered.share())
        border = len(parts.train)
        renderings = list(rendered.renderings)
        return renderings[:border], renderings[border:], list(rendered.findings)

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
            scores=tuple(scores),
        )

    def _few_labels(self) -> bool:
        """Whether the scores of all labels take less than a generated answer."""
        told = self.prompting.wording.told(self.prepared.labels)
        tokens = sum(len(self.prompting.template.encode(label)) for label in told)
        return tokens <= FEW_LABEL_TOKENS

    def base_answer(self, examples: Sequence[Example]) -> Answers:
        """What the model as it came generates for `examples`."""
        with self.tunable.as_base() as model:
            return self.answer(model, examples, "base model")

    def first_answers(self) -> Answers:
        """What the model as it came generates for the validation examples.

        Raises KilotuneError where it cannot generate at all; by `judge.base_check` that is said
        alone, as is what else is odd.
        """
        examples = self.prepared.parts.validation
        with self.tunable.as_base() as model:
            if not self.prompting.finite(model, examples[0]):
                self._unable("its logits are not finite")
        said = self.base_answer(examples)
        found = self.health(examples, said)
        if why := broken(said.texts, found):
            self._unable(why)
        for fault in faults(found):
            self.progress.say(f"base model: {fault}")
        return said

    def tune(
        self,
        train: Sequence[Rendering],
        validation: Sequence[Rendering],
        folder: RunFolder,
        on_save: Callable[[], None] = lambda: None,
    ) -> Tuning:
        """Train, measuring the generated answers on validation at every evaluation.

        `on_save` is called behind each checkpoint.
        """
        part = self.prepared.parts.validation
        recipe = self.prepared.recipe
        streamed = bool(streamed_layers(self.tunable.model))
        if streamed and recipe.tune.stopping.metric != "none":
            recipe = _stopping_on_loss(recipe)

        metric = recipe.tune.stopping.metric

        def measure(model: Model) -> dict[str, float | Sequence[float]]:
            if streamed:  # every token would read the lower layers from disk
                return {}
            earlier = self.spent.generated
            said = self.answer(model, part, "validating").predictions
            task, labels, truth = self.prepared.task, self.prepared.labels, references(part)
            found: dict[str, float | Sequence[float]] = {**quick_metrics(task, truth, said, labels)}
            found["generated_tokens"] = self.spent.generated - earlier
            if metric in found:
                found["scores"] = example_scores(task, metric, truth, said, labels)
            return found

        spent = self.spent.generated
        job = TuningJob(
            recipe,
            train,
            validation,
            self.prompting.template.tokenizer.pad_token_id,
            folder / CHECKPOINTS,
            rounds=rounds_of(self.prepared.parts.train),
            eyes=self.prompting.eyes,
        )
        hooks = Hooks(measure, folder.append_metrics, on_save, self.progress)
        tuning = tune(self.tunable, job, hooks)
        # What was generated before the training was stopped and resumed counts, and once.
        self.spent.generated = spent + tuning.generated
        return tuning

    def judge(
        self,
        examples: Sequence[Example],
        known: Sequence[Example],
        base: Answers | None = None,
        *,
        scored: bool = False,
    ) -> Judged:
        """Every system on `examples`; baselines learn from `known`, `base` may be there already.

        Where labels are closed and `scored`, the tuned model's probabilities of them are judged.
        """
        base = base or self.base_answer(examples)
        scored = scored and self.prepared.task == "classify"
        tuned = self.answer(self.tunable.model, examples, "tuned model", scored=scored)
        floors = baselines(self.prepared.task, known, examples)
        answers = {**floors, "base": base, "tuned": tuned}
        judgements = {name: self.figures(name, examples, said) for name, said in answers.items()}
        if scored:
            calibrated = self.calibration(examples, tuned)
            judgements["tuned"] = replace(judgements["tuned"], calibration=calibrated)
        return Judged(tuple(examples), answers, judgements)

    def forgetting(self) -> Forgetting | None:
        """How far the tuned model has moved on general prompts; None where that is not measured."""
        if self.prepared.recipe.judge.forgetting == "never":
            return None
        if streamed_layers(self.tunable.model):
            self.progress.say("forgetting: not measured, each token would read layers from disk")
            return None
        asked, model = general_prompts(), self.tunable.model
        prompting = self.prompting.plain(ANSWER_TOKENS)
        examples = [
            Example(f"general:{number}", (Message("user", one.prompt),), Origin("general", number))
            for number, one in enumerate(asked, 1)
        ]
        if self.prompting.limits.positions:
            refused = {row for finding in prompting.refusals(examples) for row in finding.rows}
            kept = [number for number, e in enumerate(examples) if e.id not in refused]
            asked, examples = tuple(asked[n] for n in kept), [examples[n] for n in kept]
        if not examples:
            self.progress.say("forgetting: not measured, no general prompt is short enough")
            return None
        with self.tunable.as_base() as base:
            before = prompting.answers(base, examples, self.progress, "general prompts, base")
        after = prompting.answers(model, examples, self.progress, "general prompts, tuned")
        self.spent.generated += sum(answer.tokens for answer in (*before, *after))
        said = [i for i, answer in enumerate(before) if answer.text or answer.stopped]
        if not said:
            self.progress.say("forgetting: not measured, the base model says nothing")
            return None
        drifts = apart(
            model,
            self.tunable.as_base,
            prompting.token_ids([examples[i] for i in said]),
            [before[i].token_ids for i in said],
            pad_id=prompting.generation.pad_token_id,
            progress=self.progress,
        )
        judge = self.prepared.recipe.judge
        return forgetting(
            [asked[i].kind for i in said],
            drifts,
            base_health=_general_health(asked, before),
            health=_general_health(asked, after, before),
            samples=judge.bootstrap_samples,
            seed=self.prepared.recipe.seed,
        )

    def judge_training(self) -> Judgement:
        """The tuned model on a sample of its own training examples, asked in the same way."""
        judge = self.prepared.recipe.judge
        train = [example for example in self.prepared.parts.train if not example.origin.parent]
        # Drawn, since a file is often sorted by label.
        size = min(judge.train_sample, len(train))
        sample = random.Random(self.prepared.recipe.seed).sample(train, size)
        return self.figures(
            "train", sample, self.answer(self.tunable.model, sample, "training sample")
        )

    def label_probabilities(
        self, known: Sequence[Example]
    ) -> tuple[tuple[Example, ...], NDArray[np.float64]] | None:
        """Those of `known` that were read, those of validation, and the tuned model's label
        probabilities.

        Shape (examples, labels). None where there are no labels, or layers are streamed.
        """
        prepared = self.prepared
        if prepared.task != "classify" or streamed_layers(self.tunable.model):
            return None
        read = [example for example in known if not example.origin.parent]
        examples = (*read, *prepared.parts.validation)
        scored = self.prompting.scores(
            self.tunable.model, examples, prepared.labels, self.progress, "looking at the labels"
        )
        return examples, np.array([scores.probabilities for scores in scored])

    def calibration(self, examples: Sequence[Example], said: Answers) -> Calibration:
        """The label probabilities of `said` against the truth and the generated answers."""
        return calibration(
            np.array([scores.probabilities for scores in said.scores]),
            references(examples),
            said.predictions,
            self.prepared.labels,
            [example.id for example in examples],
            **self._resampling(),
        )

    def gain(self, judged: Judged, before: str, after: str) -> Estimate:
        """How much the system `after` scores above `before` on the same examples."""
        task = self.prepared.task
        both = judged.scores(before, task), judged.scores(after, task)
        return paired_gain(*both, **self._resampling())

    def gains(self, judged: Judged, before: str, after: str) -> dict[str, Estimate]:
        """The same of the task's two figures, by name."""
        task, metrics = self.prepared.task, TASKS[self.prepared.task]
        right = [list(map(float, judged.right(name, task))) for name in (before, after)]
        exact = paired_gain(right[0], right[1], **self._resampling())
        if metrics.score is not None:
            return {metrics.exact: exact, metrics.graded: self.gain(judged, before, after)}
        graded = macro_f1_gain(
            references(judged.examples),
            judged.answers[before].predictions,
            judged.answers[after].predictions,
            self.prepared.labels,
            **self._resampling(),
        )
        return {metrics.exact: exact, metrics.graded: graded}

    def _resampling(self) -> Resampling:
        recipe = self.prepared.recipe
        return {"samples": recipe.judge.bootstrap_samples, "seed": recipe.seed}

    def save(self, folder: RunFolder) -> Path:
        """Save what was tuned, with tokenizer, chat template and decoding. Returns where."""
        tokenizer = self.prompting.template.tokenizer
        eyes = self.prompting.eyes
        vision = None if eyes is None else eyes.vision
        generation = self.prompting.generation
        tuned = save_tuned(self.tunable, tokenizer, generation, folder.path, vision)
        if folder.writes:
            name_base(tuned, self.prepared.recipe.model.name)
            folder.note_identity(tuned=tuned_digest(tuned))
        return tuned

    def health(self, examples: Sequence[Example], said: Answers) -> Health:
        """How the answers to `examples` came out as texts."""
        return health(
            said.texts,
            stopped=said.stopped,
            unread=[prediction == UNREADABLE for prediction in said.predictions],
            prompts=[self.prompting.asked(example) for example in examples],
            references=self.prompting.wording.told(references(examples)),
        )

    def _unable(self, what: str) -> None:
        settings = self.prepared.recipe
        error = KilotuneError(
            f"the pretrained model does not generate: {what}",
            where=settings.model.name,
            fix="Look at the prompts (kilotune render) and at the model's card; try another "
            "--chat-template, or --set model.precision=float32. To tune it all the same: "
            "--set judge.base_check=say",
        )
        if settings.judge.base_check == "stop":
            raise error
        self.progress.say(f"warning: {error.what}")

    def figures(self, name: str, examples: Sequence[Example], said: Answers) -> Judgement:
        """The figures of one system's answers."""
        return judge_system(
            name,
            self.prepared.task,
            references(examples),
            said.predictions,
            self.prepared.labels,
            health=self.health(examples, said) if said.texts else None,
            own=self.prepared.recipe.judge.metric,
            settings={
                "samples": self.prepared.recipe.judge.bootstrap_samples,
                "seed": self.prepared.recipe.seed,
            },
        )


def _stopping_on_loss(recipe: Recipe) -> Recipe:
    return recipe.with_settings({"tune.stopping.metric": "loss"})


def _general_health(
    asked: Sequence[GeneralPrompt],
    said: Sequence[Generation],
    before: Sequence[Generation] | None = None,
) -> Health:
    """How answers to general prompts came out; `before` are those of the base model."""
    return health(
        [answer.text for answer in said],
        stopped=[answer.stopped for answer in said],
        unread=[False] * len(said),
        prompts=[one.prompt for one in asked],
        references=[answer.text for answer in before] if before else [None] * len(said),
    )


def baselines(
    task: Task, known: Sequence[Example], examples: Sequence[Example]
) -> dict[str, Answers]:
    """The commonest answer, and by TF-IDF a classifier or the nearest example's answer.

    Both are learnt from `known`, for `examples`.
    """
    answers = references(known)
    predict = tfidf if task == "classify" else nearest
    words = predict([e.text for e in known], answers, [e.text for e in examples])
    common = majority(answers, len(examples))
    return {"majority": Answers(tuple(common)), "tfidf": Answers(tuple(words))}


def references(examples: Sequence[Example]) -> list[str]:
    """The true answers; of closed labels the label."""
    return [example.label or example.answer or "" for example in examples]
