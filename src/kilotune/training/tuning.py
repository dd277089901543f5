"""A training from its job to what came of it: the way it takes, and where it goes on."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path

import torch
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer import TRAINER_STATE_NAME

from kilotune import distributed
from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.pretrained import compute_dtype
from kilotune.models.sharding import of_the_leader
from kilotune.models.vision import Eyes
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.training.activations import Activations, open_activations
from kilotune.training.agreement import agree, fast_path
from kilotune.training.batches import collate
from kilotune.training.checkpoints import find_best, newest_whole
from kilotune.training.gradients import GradientWatch, gradients_of
from kilotune.training.memory import BatchLengths, available_bytes, batch_of, micro_batch_size
from kilotune.training.order import Items, LengthOrder
from kilotune.training.packing import pack, shared_length, told_apart
from kilotune.training.stopping import EarlyStopping
from kilotune.training.trainer import LabelledTrainer, Measure
from kilotune.training.tuning_result import Agreement, CacheUse, Tuning
from kilotune.training.watch import TOKENS, Watch


@dataclass(frozen=True, slots=True)
class Checked:
    """What the first checks of a training came to, for others of the same model and method."""

    agreement: Agreement
    cache: CacheUse


class Interrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C; a checkpoint of the last step has been written."""


@dataclass(frozen=True, slots=True)
class TuningJob:
    """What is trained on, how, and where its checkpoints go.

    Each epoch takes those of `train` whose numbers stand in its one of `rounds`, all of one size;
    without them it takes all. Examples with images need the model's `eyes`. Without `keep` there
    are no checkpoints, and no best but the last step.
    """

    recipe: Recipe
    train: Sequence[Rendering]
    validation: Sequence[Rendering]
    pad_id: int
    folder: Path
    rounds: Sequence[Sequence[int]] = ()
    eyes: Eyes | None = None
    keep: bool = True

    @property
    def every(self) -> tuple[Rendering, ...]:
        """All that the model will be given."""
        return (*self.train, *self.validation)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who is asked and told while a training goes on.

    `measure` gives the generated metrics at each evaluation, `on_log` receives each line of the
    training log, `on_save` is called behind each checkpoint.
    """

    measure: Measure = lambda model: {}
    on_log: Callable[[dict[str, float]], None] = lambda line: None
    on_save: Callable[[], None] = lambda: None
    progress: Progress = field(default_factory=Silent)


@dataclass(frozen=True, slots=True)
class Execution:
    """The way to the same result: from which states on, packed or not, how many at once."""

    activations: Activations | None
    cache: CacheUse
    agreement: Agreement
    micro: int


def tune(
    tunable: Tunable, job: TuningJob, hooks: Hooks | None = None, checked: Checked | None = None
) -> Tuning:
    """Train `tunable` in place, the best checkpoint restored.

    Goes on from the last whole checkpoint in the job's folder, if there is one. What `checked`
    knows is not found out again. Raises Interrupted after Ctrl-C, once a checkpoint is written.
    """
    hooks = hooks or Hooks()
    folder = job.folder.absolute()
    watch = Watch(hooks.on_log, hooks.on_save, hooks.progress, folder)
    items = Items(job.train, job.rounds)
    way = _execution(tunable, job, items, checked, hooks.progress)
    trainer = _trainer(tunable, replace(job, folder=folder), items, way, hooks.measure, watch)
    _train(trainer, watch, folder, packed=way.agreement.packed)
    tunable.model.eval()
    state = trainer.state
    return Tuning(
        history=tuple(state.log_history),
        steps=state.global_step,
        best_step=state.best_global_step or state.global_step,
        best_metric=state.best_metric,
        stopped=_reason(state),
        micro_batch_size=way.micro,
        agreement=way.agreement,
        cache=way.cache,
        gradients=gradients_of(state),
        tokens=_trained_tokens(state, items),
        generated=int(sum(line.get(TOKENS, 0) for line in state.log_history)),
    )


def _execution(
    tunable: Tunable, job: TuningJob, items: Items, checked: Checked | None, progress: Progress
) -> Execution:
    """The fastest way whose result is the plain one's, by the first batch of `items`."""
    recipe, every = job.recipe, job.every
    activations, cache = open_activations(
        tunable,
        every,
        recipe.tune,
        pad_id=job.pad_id,
        autocast=_autocast(recipe),
        progress=progress,
        eyes=job.eyes,
        checked=checked.cache if checked else None,
    )
    if checked is None:
        longest = max(len(rendering.token_ids) for rendering in every)
        first = _first_batch(items, recipe)
        agreement = agree(tunable, first, job.pad_id, longest, activations, job.eyes)
        progress.say(f"Batches are {agreement.path}: {agreement.reason}")
    else:
        agreement = checked.agreement
    micro = _micro_batch_size(tunable, recipe, every, job.eyes, packed=agreement.packed)
    return Execution(activations, cache, agreement, micro)


def _trainer(
    tunable: Tunable, job: TuningJob, items: Items, way: Execution, measure: Measure, watch: Watch
) -> LabelledTrainer:
    """The Trainer of a job. Raises KilotuneError for what several processes cannot do."""
    settings = job.recipe.tune
    states = way.activations.states if way.activations else None
    made = pack if way.agreement.packed else partial(collate, pad_id=job.pad_id)
    trainer = LabelledTrainer(
        model=tunable.model,
        args=_arguments(job, way.micro),
        train_dataset=items,
        eval_dataset=Items(job.validation) if job.validation else None,
        data_collator=lambda items: vars(made(items, states=states, eyes=job.eyes)),
        callbacks=[EarlyStopping.of(settings.stopping), GradientWatch(), watch],
        measure=measure,
        activations=way.activations,
    )
    if trainer.is_fsdp_enabled and tunable.adapted and not tunable.adapter:
        # Its checkpoints of a PEFT model hold adapters alone: the best weights would be lost.
        raise KilotuneError(
            "adapters beside weights that are trained themselves cannot be sharded",
            where="tune.trainable",
            fix="Train data-parallel (torchrun) or in one process, or leave tune.trainable out",
        )
    if trainer.is_deepspeed_enabled:  # it keeps the gradients to itself
        trainer.remove_callback(GradientWatch)
    trainer.remove_callback(PrinterCallback)  # it prints every log line on standard output
    return trainer


def check_trackers(names: Sequence[str]) -> None:
    """Raise KilotuneError for trackers that transformers does not know or cannot use here."""
    for name in names:
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()  # each looks for its own package
        except (ValueError, RuntimeError, ImportError) as error:
            raise KilotuneError(
                str(error).splitlines()[0].rstrip("."),
                where=f"tune.report_to={name}",
                fix="Install what it needs, or leave it out",
            ) from error


def _trained_tokens(state: TrainerState, items: Items) -> int:
    epochs = max((line["epoch"] for line in state.log_history if "epoch" in line), default=0.0)
    tokens = 0.0
    for epoch in range(ceil(epochs)):
        items.set_epoch(epoch)
        tokens += min(1.0, epochs - epoch) * sum(items.lengths)
    return round(tokens)


def _train(trainer: LabelledTrainer, watch: Watch, folder: Path, *, packed: bool) -> None:
    """From the last checkpoint on, if there is one, to the end; raises Interrupted."""
    model = trainer.model  # sharded training puts another one there
    checkpoint = _last_checkpoint(folder, watch.progress)
    if not (checkpoint and _is_over(trainer, checkpoint)):
        with ExitStack() as stack:
            stack.callback(watch.close)
            if packed:
                stack.enter_context(fast_path(model))
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.interrupted:
        raise Interrupted
    # Training leaves autocast around the forward; what is judged and exported has none.
    trainer.accelerator.unwrap_model(model, keep_fp32_wrapper=False)


def _first_batch(items: Items, recipe: Recipe) -> list[Rendering]:
    """Of the texts that come first, and of those with images at least one."""
    order = LengthOrder(items.lengths, recipe.tune.batch_size, seed=recipe.seed)
    batch = [items[index] for index in islice(order, recipe.tune.batch_size)]
    pictured = [rendering for rendering in items.renderings if rendering.images]
    return batch if any(r.images for r in batch) else [*batch, *pictured[:1]]


def _micro_batch_size(
    tunable: Tunable, recipe: Recipe, every: Sequence[Rendering], eyes: Eyes | None, *, packed: bool
) -> int:
    """How many examples one process takes at a time; raises KilotuneError if that is no divisor."""
    settings, several = recipe.tune, distributed.count()
    micro = settings.micro_batch_size
    if micro == "auto":
        own = max(1, settings.batch_size // several)
        lengths = BatchLengths(
            longest=max(len(rendering.token_ids) for rendering in every),
            shared=shared_length(told_apart(every, eyes)) if packed else 0,
            labelled=sum(sum(rendering.label_mask) for rendering in every) / len(every),
        )
        batch = batch_of(tunable.model, recipe, lengths, packed=packed)
        fitting = micro_batch_size(batch, own, available_bytes())
        micro = int(of_the_leader(str(fitting)))
    if settings.batch_size % (micro * several):
        raise KilotuneError(
            f"{settings.batch_size} examples a step cannot be cut into micro-batches of {micro}"
            f" for {several} processes",
            where="tune.batch_size",
            fix=f"Choose a multiple of {micro * several}",
        )
    return micro


def _last_checkpoint(folder: Path, progress: Progress) -> Path | None:
    """The newest whole one, which all processes go on from."""
    found = newest_whole(folder, progress.say) if distributed.leads() else None
    name = of_the_leader(found.name if found else "")
    return folder / name if name else None


def _is_over(trainer: Trainer, checkpoint: Path) -> bool:
    """Whether training had come to its end at `checkpoint`; if so its best is restored, or itself.

    The Trainer would go on after an early stop: on resuming it forgets that a callback asked.
    """
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if not (_stopping(state).stopped or state.global_step >= state.max_steps):
        return False
    trainer.state = state
    best = find_best(state, checkpoint.parent)
    # With nothing to be the best by, the last.
    state.best_model_checkpoint = str(best or checkpoint)
    trainer._load_best_model()
    return True


def _stopping(state: TrainerState) -> EarlyStopping:
    return EarlyStopping.from_state(state.stateful_callbacks["EarlyStopping"])


def _reason(state: TrainerState) -> str:
    stopping = _stopping(state)
    if stopping.stopped:
        least = stopping.minimum_gain
        gained = "was surely worse" if least == "auto" else f"gained no more than {least:g}"
        return (
            f"early, at step {state.global_step}: validation {stopping.metric} {gained} "
            f"in {stopping.patience} evaluation(s)"
        )
    return f"at the last epoch, step {state.global_step}"


def _autocast(recipe: Recipe) -> torch.dtype | None:
    """The type of the products of float32 weights that are trained themselves, if not their own."""
    compute = compute_dtype(recipe.model.precision)
    alone = recipe.tune.adapters_alone or compute == torch.float32
    return None if alone else compute


def _arguments(job: TuningJob, micro: int) -> TrainingArguments:
    recipe, settings, keep, validated = job.recipe, job.recipe.tune, job.keep, bool(job.validation)
    every = settings.stopping.every
    # Without validation there is nothing to wait for between the epochs.
    strategy, steps = ("epoch", 500) if every == "epoch" or not validated else ("steps", every)
    stops = settings.stopping.metric != "none"
    arguments = TrainingArguments(
        output_dir=str(job.folder),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=max(micro, 8),
        gradient_accumulation_steps=settings.batch_size // (micro * distributed.count()),
        num_train_epochs=settings.passes,
        learning_rate=settings.rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=_autocast(recipe) == torch.bfloat16,
        use_cpu=not torch.cuda.is_available() and not torch.backends.mps.is_available(),
        seed=recipe.seed,
        eval_strategy=strategy if validated else "no",
        eval_steps=steps,
        save_strategy=strategy if keep else "no",
        save_steps=steps,
        save_total_limit=None,  # older ones go once a newer one is sealed
        load_best_model_at_end=keep and stops,
        metric_for_best_model=f"eval_{settings.stopping.metric}" if stops else None,
        greater_is_better=settings.stopping.metric != "loss",
        restore_callback_states_from_checkpoint=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # A process uses one card: nn.DataParallel would cut packs apart. Several take torchrun.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments
