"""A session's model fine-tuned: what it learns from as token ids, the training, what is saved."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kilotune.augmentation.epochs import rounds_of
from kilotune.data.example import references
from kilotune.data.finding import Finding, stop_on_errors
from kilotune.evaluation.judgement import example_scores, quick_metrics
from kilotune.models.identity import tuned_digest
from kilotune.models.pretrained import Model
from kilotune.models.public import name_base
from kilotune.models.streaming import streamed_layers
from kilotune.models.tuned_weights import save_tuned
from kilotune.rendering.label_mask import Rendering
from kilotune.rendering.renderings import render_examples
from kilotune.runs.record import CHECKPOINTS, RunFolder
from kilotune.session.model_session import Session
from kilotune.training.tuning import Hooks, TuningJob, tune
from kilotune.training.tuning_result import Tuning


def render(session: Session) -> tuple[list[Rendering], list[Rendering], list[Finding]]:
    """Training and validation as token ids with label masks, and what was found in them.

    Raises KilotuneError when the template would train something else than what is generated.
    """
    prepared, prompting = session.prepared, session.prompting
    parts, labels = prepared.parts, prepared.labels
    rendered = render_examples(
        prompting.template,
        prompting.wording,
        (*parts.train, *parts.validation),
        max_length=prompting.max_length,
        train_on=prepared.recipe.data.train_on,
        limits=prompting.limits,
    )
    # The test is asked last, hours too late to say that it cannot be; of training a sample.
    known = [example for example in parts.train if not example.origin.parent]
    asked = (*(known if prompting.tight(labels) else ()), *parts.validation, *parts.test)
    refused = prompting.refusals(asked, labels)
    stop_on_errors([*rendered.findings, *refused], prepared.recipe.model.name)
    session.progress.say(rendered.share())
    border = len(parts.train)
    renderings = list(rendered.renderings)
    return renderings[:border], renderings[border:], list(rendered.findings)


def fine_tune(
    session: Session,
    train: Sequence[Rendering],
    validation: Sequence[Rendering],
    folder: RunFolder,
    on_save: Callable[[], None] = lambda: None,
) -> Tuning:
    """Train, measuring the generated answers on validation at every evaluation.

    `on_save` is called behind each checkpoint.
    """
    job = tuning_job(session, train, validation, folder / CHECKPOINTS)
    metric = job.recipe.tune.stopping.metric
    measure = partial(_measured, session, metric)
    hooks = Hooks(measure, folder.append_metrics, on_save, session.progress)
    if streamed_layers(session.tunable.model):  # every token would read the lower layers from disk
        hooks = replace(hooks, measure=lambda model: {})
        if metric != "none":
            job = replace(job, recipe=job.recipe.with_settings({"tune.stopping.metric": "loss"}))
    spent = session.spent.generated
    tuning = tune(session.tunable, job, hooks)
    # What was generated before the training was stopped and resumed counts, and once.
    session.spent.generated = spent + tuning.generated
    return tuning


def tuning_job(
    session: Session,
    train: Sequence[Rendering],
    validation: Sequence[Rendering],
    folder: Path,
    *,
    keep: bool = True,
) -> TuningJob:
    """The training of the session's model on renderings of its data; checkpoints go to `folder`."""
    return TuningJob(
        session.prepared.recipe,
        train,
        validation,
        session.prompting.template.tokenizer.pad_token_id,
        folder,
        rounds=rounds_of(session.prepared.parts.train),
        eyes=session.prompting.eyes,
        keep=keep,
    )


def _measured(session: Session, metric: str, model: Model) -> dict[str, float | Sequence[float]]:
    """The generated metrics on validation, with each example's where `metric` stops by them."""
    task, labels = session.prepared.task, session.prepared.labels
    examples, earlier = session.prepared.parts.validation, session.spent.generated
    truth = references(examples)
    said = session.answer(model, examples, "validating").predictions
    found: dict[str, float | Sequence[float]] = {**quick_metrics(task, truth, said, labels)}
    found["generated_tokens"] = session.spent.generated - earlier
    if metric in found:
        found["scores"] = example_scores(task, metric, truth, said, labels)
    return found


def save(session: Session, folder: RunFolder) -> Path:
    """Save what was tuned, with tokenizer, chat template and decoding. Returns where."""
    prompting = session.prompting
    vision = None if prompting.eyes is None else prompting.eyes.vision
    tokenizer = prompting.template.tokenizer
    tuned = save_tuned(session.tunable, tokenizer, prompting.generation, folder.path, vision)
    if folder.writes:
        name_base(tuned, session.prepared.recipe.model.name)
        folder.note_identity(tuned=tuned_digest(tuned))
    return tuned
