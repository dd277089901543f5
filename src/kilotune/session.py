"""A loaded model and all that is asked of it: the same questions before and after tuning."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kilotune.data.example import Example
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.evaluate.baselines import majority, tfidf
from kilotune.evaluate.judgement import Judgement, judge_system, quick_metrics
from kilotune.evaluate.metrics import parse_label
from kilotune.experiments.record import CHECKPOINTS, RunFolder
from kilotune.generate.answer import Prompting
from kilotune.generate.decode import generation_config
from kilotune.models.export import save_tuned
from kilotune.models.freeze import Tunable
from kilotune.models.load import (
    Model,
    compute_dtype,
    load_tokenizer,
    stop_ids,
    weight_dtype,
)
from kilotune.models.streaming import load_base, streamed_layers
from kilotune.preparation import Prepared
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe
from kilotune.render.checks import check_renderings, truncated
from kilotune.render.labels import Rendering, render
from kilotune.render.template import chat_template
from kilotune.train.memory import available_bytes
from kilotune.train.trainer import Tuning, tune


@dataclass(frozen=True, slots=True)
class Answers:
    """The labels a system gave to some examples; what it said, and how often it stopped itself."""

    predictions: tuple[str, ...]
    texts: tuple[str, ...] = ()
    stopped: float | None = None

    def right(self, examples: Sequence[Example]) -> int:
        """How many of `examples`, in the same order, got their own label."""
        return sum(p == r for p, r in zip(self.predictions, references(examples), strict=True))


@dataclass(frozen=True, slots=True)
class Judged:
    """Every system on the same examples."""

    examples: tuple[Example, ...]
    answers: dict[str, Answers]
    judgements: dict[str, Judgement]


@dataclass(frozen=True, slots=True)
class Session:
    """A run's model in memory, with the data and the wording it is asked about."""

    prepared: Prepared
    prompting: Prompting
    tunable: Tunable
    progress: Progress

    def render(self) -> tuple[list[Rendering], list[Rendering], list[Finding]]:
        """Training and validation as token ids with label masks, and what was found in them.

        Raises KilotuneError when the template would train something else than what is generated.
        """
        parts = self.prepared.parts
        fitted = [self.prompting.fit(example) for example in (*parts.train, *parts.validation)]
        examples = [example for example, _ in fitted]
        renderings = [render(self.prompting.template, example) for example in examples]
        faults = check_renderings(self.prompting.template, examples, renderings)
        stop_on_errors(faults, self.prepared.recipe.model.name)
        cut = [example.id for example, was_cut in fitted if was_cut]
        border = len(parts.train)
        findings = truncated(cut, self.prompting.max_length)
        return renderings[:border], renderings[border:], findings

    def answer(self, model: Model, examples: Sequence[Example], title: str) -> Answers:
        """What `model` generates for `examples`, and the labels that its answers name."""
        said = self.prompting.answers(model, examples, self.progress, title)
        return Answers(
            predictions=tuple(parse_label(answer.text, self.prepared.labels) for answer in said),
            texts=tuple(answer.text for answer in said),
            stopped=sum(answer.stopped for answer in said) / max(1, len(said)),
        )

    def base_answer(self, examples: Sequence[Example]) -> Answers:
        """What the model as it came generates for `examples`."""
        with self.tunable.as_base() as model:
            return self.answer(model, examples, "base model")

    def tune(
        self, train: Sequence[Rendering], validation: Sequence[Rendering], folder: RunFolder
    ) -> Tuning:
        """Train, measuring the generated answers on validation at every evaluation."""
        part = self.prepared.parts.validation
        recipe = self.prepared.recipe
        streamed = bool(streamed_layers(self.tunable.model))
        if streamed:
            recipe = _stopping_on_loss(recipe)

        def measure(model: Model) -> dict[str, float]:
            if streamed:  # every token would read the lower layers from disk
                return {}
            said = self.answer(model, part, "validating")
            return quick_metrics(references(part), said.predictions, self.prepared.labels)

        return tune(
            self.tunable,
            recipe,
            train=train,
            validation=validation,
            pad_id=self.prompting.template.tokenizer.pad_token_id,
            folder=folder / CHECKPOINTS,
            measure=measure,
            on_log=folder.append_metrics,
            progress=self.progress,
        )

    def judge(
        self, examples: Sequence[Example], known: Sequence[Example], base: Answers | None = None
    ) -> Judged:
        """Every system on `examples`; baselines learn from `known`, `base` may be there already."""
        base = base or self.base_answer(examples)
        tuned = self.answer(self.tunable.model, examples, "tuned model")
        answers = {**baselines(known, examples), "base": base, "tuned": tuned}
        judgements = {name: self.figures(name, examples, said) for name, said in answers.items()}
        return Judged(tuple(examples), answers, judgements)

    def judge_training(self) -> Judgement:
        """The tuned model on a sample of its own training examples, asked in the same way."""
        train, judge = self.prepared.parts.train, self.prepared.recipe.judge
        # Drawn, since a file is often sorted by label.
        size = min(judge.train_sample, len(train))
        sample = random.Random(self.prepared.recipe.seed).sample(train, size)
        return self.figures(
            "train", sample, self.answer(self.tunable.model, sample, "training sample")
        )

    def save(self, folder: RunFolder) -> Path:
        """Save what was tuned, with tokenizer, chat template and decoding. Returns where."""
        tokenizer = self.prompting.template.tokenizer
        return save_tuned(self.tunable, tokenizer, self.prompting.generation, folder.path)

    def figures(self, name: str, examples: Sequence[Example], said: Answers) -> Judgement:
        """The figures of one system's answers."""
        return judge_system(
            name,
            references(examples),
            said.predictions,
            self.prepared.labels,
            stopped=said.stopped,
            bootstrap_samples=self.prepared.recipe.judge.bootstrap_samples,
            seed=self.prepared.recipe.seed,
        )


def open_session(prepared: Prepared, source: str, progress: Progress) -> Session:
    """Load the model at `source` with fresh adapters or unfrozen layers, ready to be asked."""
    recipe = prepared.recipe
    tokenizer = load_tokenizer(source, recipe.model)
    template = chat_template(tokenizer)
    dtype = weight_dtype(recipe.tune, compute_dtype(recipe.model.precision))
    model = load_base(source, recipe, dtype, available_bytes())
    if streamed := streamed_layers(model):
        progress.say(
            f"{len(streamed)} lower layers stay on disk and are read one at a time. Tuning stops "
            "on the validation loss; each generated token reads them all once, so judging is slow"
        )
    generation = generation_config(
        recipe.decoding,
        answer_tokens=max(len(template.encode(label)) for label in prepared.labels) + 1,
        stop_ids=stop_ids(model, template.stop_id),
        pad_id=tokenizer.pad_token_id,
    )
    prompting = Prompting(
        template, prepared.wording, generation, recipe.data.max_length, recipe.seed
    )
    return Session(prepared, prompting, Tunable(model, recipe.tune, recipe.seed), progress)


def _stopping_on_loss(recipe: Recipe) -> Recipe:
    stopping = recipe.tune.stopping.model_copy(update={"metric": "loss"})
    return recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"stopping": stopping})})


def baselines(known: Sequence[Example], examples: Sequence[Example]) -> dict[str, Answers]:
    """The commonest label and a bag of words, both learnt from `known`, for `examples`."""
    labels = references(known)
    words = tfidf([e.text for e in known], labels, [e.text for e in examples])
    common = majority(labels, len(examples))
    return {"majority": Answers(tuple(common)), "tfidf": Answers(tuple(words))}


def references(examples: Sequence[Example]) -> list[str]:
    """The true labels."""
    return [example.label or "" for example in examples]
