"""Tuning: transformers' Trainer with our loss, our evaluation and our stopping."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.integrations import get_reporting_integration_callbacks
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from kilotune import distributed
from kilotune.errors import KilotuneError
from kilotune.models.freeze import Gradients, Tunable
from kilotune.models.pretrained import Model, compute_dtype
from kilotune.models.sharding import of_the_leader, whole
from kilotune.models.trainable import of_adapter
from kilotune.models.vision import Eyes
from kilotune.progress import Progress
from kilotune.recipe.schema import Recipe, TuneSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.system.os_errors import naming
from kilotune.training.activations import Activations, CacheUse, open_activations
from kilotune.training.agreement import Agreement, agree, fast_path
from kilotune.training.batches import Batch, collate
from kilotune.training.checkpoints import find_best, newest_whole, rotate, seal
from kilotune.training.gradients import GradientWatch, gradients_of
from kilotune.training.loss import LabelledLoss, labelled_count
from kilotune.training.memory import BatchLengths, available_bytes, batch_of, micro_batch_size
from kilotune.training.order import Items, LengthOrder
from kilotune.training.packing import pack, shared_length, told_apart
from kilotune.training.stopping import SCORES, EarlyStopping
from kilotune.training.watch import TOKENS, Watch

# Metrics by name and, where early stopping is to know their noise, the examples' `scores`.
Measure = Callable[[Model], Mapping[str, float | Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What came of a training: its log, where it was best and why it ended.

    `tokens` went through it, those of prompts included, each time they did; `generated` ones were
    answered with at its evaluations. What was done before it was stopped and resumed counts too.
    """

    history: tuple[dict[str, float], ...]
    steps: int
    best_step: int
    best_metric: float | None
    stopped: str
    micro_batch_size: int
    agreement: Agreement
    cache: CacheUse
    gradients: Gradients | None
    tokens: int
    generated: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What the first checks of a training came to, for others of the same model and method."""

    agreement: Agreement
    cache: CacheUse


class Interrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C; a checkpoint of the last step has been written."""


class LabelledTrainer(Trainer):
    """The Trainer with a loss over labelled tokens and a generated validation metric.

    `measure` is called at every evaluation with the model as it is and returns the generated
    metrics by name. With `activations`, batches carry hidden states and the model starts from
    them; whatever `measure` does is done with the complete model.
    """

    # The loss is already a mean over the whole accumulated batch.
    loss_is_scaled_for_ga = True

    def __init__(
        self, *args: Any, measure: Measure, activations: Activations | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.measure = measure
        self.activations = activations
        self.train_order: LengthOrder | None = None
        self.add_callback(_EpochBegins(self))
        with self._from_states():
            self.loss = LabelledLoss(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthOrder:
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps
        self.train_order = self._order(
            self.train_dataset, self.args.train_batch_size, step, self.args.seed
        )
        return self.train_order

    def _get_eval_sampler(self, eval_dataset: Any) -> LengthOrder:
        size = self.args.eval_batch_size
        return self._order(eval_dataset, size, size, None)

    def _order(self, items: Items, micro: int, step: int, seed: int | None) -> LengthOrder:
        distributed = self.accelerator.num_processes
        # One process takes what there is; several must have as many batches each.
        multiple = micro * distributed if distributed > 1 else 1
        return LengthOrder(items.lengths, step * distributed, seed=seed, multiple=multiple)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Any:
        count = sum(labelled_count(batch) for batch in batch_samples)
        return self.accelerator.gather(torch.as_tensor(count).to(device)).sum()

    def compute_loss(
        self,
        model: Model,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's share of the mean over all labelled tokens of the step."""
        assert num_items_in_batch is not None
        # Processes average their gradients; the mean is over the tokens of all of them.
        share = self.accelerator.num_processes / num_items_in_batch
        return self._loss(model, inputs) * share

    def _loss(self, model: Model, inputs: Batch) -> torch.Tensor:
        with self._from_states():
            return self.loss.sum(model, inputs)

    def _from_states(self) -> AbstractContextManager[None]:
        return self.activations.bypassed(self.model) if self.activations else nullcontext()

    def evaluation_loop(
        self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Validation loss and generated metrics.

        Here and not after `evaluate`, so that stopping and the choice of the best see them.
        """
        model = self.model
        training = model.training
        model.eval()
        total, count = torch.zeros((), dtype=torch.float64), 0
        with torch.no_grad(), self.compute_loss_context_manager():
            for batch in dataloader:
                inputs = self._prepare_inputs(batch)
                total += self._loss(model, inputs).cpu().double()  # Apple's GPUs have no double
                count += int(labelled_count(inputs))
            own = torch.tensor([[float(total), float(count)]], device=self.args.device)
            sums = self.accelerator.gather(own)
            measured = self.measure(model)
            if self.accelerator.num_processes > 1:  # what all go on by must not differ by rounding
                measured = json.loads(of_the_leader(json.dumps(measured)))
        model.train(training)
        loss = float(sums[:, 0].sum() / sums[:, 1].sum())
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in {"loss": loss, **measured}.items()}
        return EvalLoopOutput(None, None, metrics, len(dataloader.dataset))

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Numbers alone: the scores of single examples are for early stopping."""
        super().log(
            {name: value for name, value in logs.items() if name != SCORES}, *args, **kwargs
        )

    def _determine_best_metric(self, metrics: dict[str, Any], trial: Any) -> bool:
        """The best is what early stopping counts as a gain, unless a minimum gain is given.

        A gain below that does not put off the end, but is still the better.
        """
        (stopping,) = (c for c in self.callback_handler.callbacks if isinstance(c, EarlyStopping))
        if stopping.metric == "none" or stopping.minimum_gain != "auto":
            return super()._determine_best_metric(metrics, trial)
        if stopping.gained:
            self.state.best_metric = metrics[f"eval_{stopping.metric}"]
            self.state.best_global_step = self.state.global_step
        return stopping.gained

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Checkpoints hold what is trained: adapters, or the trained layers, not the whole."""
        if self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call)
            return
        # Of a sharded model every process brings its part. Of adapters a part may be frozen.
        named = self.model.named_parameters()
        state = {n: whole(p) for n, p in named if p.requires_grad or of_adapter(n)}
        if not self.args.should_save:
            return
        if all(map(of_adapter, state)):
            self._save(output_dir, state)
            return
        # Under the names that loading looks for: save_pretrained writes older ones for some models.
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})

    def _save_checkpoint(self, model: Model, trial: Any) -> None:
        """As the Trainer's, and sealed once all processes have written their parts."""
        checkpoint = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:  # one of these steps that was skipped: PEFT would read its card
            shutil.rmtree(checkpoint, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        with naming(checkpoint):  # a full disk comes without a name
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                seal(checkpoint)
                rotate(checkpoint)

    def _load_best_model(self) -> None:
        if not Path(self.state.best_model_checkpoint).is_dir():  # else a warning, and worse weights
            raise KilotuneError(
                "the best checkpoint is not there",
                where=str(self.state.best_model_checkpoint),
                fix="Put the run on a file system that all machines share (--out)",
            )
        weights = Path(self.state.best_model_checkpoint) / SAFE_WEIGHTS_NAME
        if hasattr(self.model, "peft_config") and weights.is_file():
            # Adapters and weights beside them, which the Trainer does not expect of PEFT's models.
            self._issue_warnings_after_load(self.model.load_state_dict(load_file(weights), False))
        else:
            super()._load_best_model()

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As the Trainer's, but what of an adapter was frozen stays so."""
        trained = [(p, p.requires_grad) for p in self.model.parameters()]
        super()._load_from_checkpoint(*args, **kwargs)
        for parameter, was in trained:
            parameter.requires_grad_(was)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Frozen weights are missing from our checkpoints by design; nothing else may be."""
        if load_result.unexpected_keys:
            raise KilotuneError(
                "the checkpoint is of another model",
                where=self.args.output_dir,
                fix="Start a new run",
            )


class _EpochBegins(TrainerCallback):
    """Tells the examples and their order which epoch they are for.

    accelerate's loader does so too, but not in the epoch that several processes resume in: there
    the sampler lies deeper than it looks.
    """

    def __init__(self, trainer: LabelledTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before the first batch is drawn."""
        order, items = self.trainer.train_order, self.trainer.train_dataset
        assert order is not None
        items.set_epoch(int(state.epoch))
        order.lengths = items.lengths
        order.set_epoch(int(state.epoch))


def tune(
    tunable: Tunable,
    recipe: Recipe,
    *,
    train: Sequence[Rendering],
    validation: Sequence[Rendering],
    pad_id: int,
    folder: Path,
    measure: Measure,
    on_log: Callable[[dict[str, float]], None] = lambda line: None,
    on_save: Callable[[], None] = lambda: None,
    progress: Progress,
    rounds: Sequence[Sequence[int]] = (),
    eyes: Eyes | None = None,
    checked: Checked | None = None,
    keep: bool = True,
) -> Tuning:
    """Train `tunable` in place, the best checkpoint restored.

    Each epoch takes those of `train` whose numbers stand in its one of `rounds`, all of one size;
    without them it takes all. Goes on from the last whole checkpoint in `folder`, if there is one.
    `on_log` receives each line of the training log, `on_save` is called behind each checkpoint;
    examples with images need the model's `eyes`.
    What `checked` knows is not found out again. Without `keep` there are no checkpoints, and no
    best but the last step. Raises Interrupted after Ctrl-C, once a checkpoint is written.
    """
    settings = recipe.tune
    folder = folder.absolute()
    watch = Watch(on_log, on_save, progress, folder)
    items = Items(train, rounds)
    activations, cache = open_activations(
        tunable,
        (*train, *validation),
        settings,
        pad_id=pad_id,
        autocast=_autocast(recipe),
        progress=progress,
        eyes=eyes,
        checked=checked.cache if checked else None,
    )
    longest = max(len(rendering.token_ids) for rendering in (*train, *validation))
    if checked is None:
        agreement = agree(tunable, _first_batch(items, recipe), pad_id, longest, activations, eyes)
        progress.say(f"Batches are {agreement.path}: {agreement.reason}")
    else:
        agreement = checked.agreement
    micro = _micro_batch_size(tunable, recipe, (*train, *validation), eyes, packed=agreement.packed)
    states = activations.states if activations else None
    padded = partial(collate, pad_id=pad_id, states=states, eyes=eyes)
    packed = partial(pack, states=states, eyes=eyes)
    trainer = LabelledTrainer(
        model=tunable.model,
        args=_arguments(settings, recipe, micro, folder, validated=bool(validation), keep=keep),
        train_dataset=items,
        eval_dataset=Items(validation) if validation else None,
        data_collator=packed if agreement.packed else padded,
        callbacks=[EarlyStopping.of(settings.stopping), GradientWatch(), watch],
        measure=measure,
        activations=activations,
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
    _train(trainer, watch, folder, packed=agreement.packed)
    tunable.model.eval()
    state = trainer.state
    return Tuning(
        history=tuple(state.log_history),
        steps=state.global_step,
        best_step=state.best_global_step or state.global_step,
        best_metric=state.best_metric,
        stopped=_reason(state),
        micro_batch_size=micro,
        agreement=agreement,
        cache=cache,
        gradients=gradients_of(state),
        tokens=_trained_tokens(state, items),
        generated=int(sum(line.get(TOKENS, 0) for line in state.log_history)),
    )


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
    tunable: Tunable,
    recipe: Recipe,
    every: Sequence[Rendering],
    eyes: Eyes | None,
    *,
    packed: bool,
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
    state.best_model_checkpoint = str(
        best or checkpoint
    )  # with nothing to be the best by, the last
    trainer._load_best_model()
    return True


def _stopping(state: TrainerState) -> EarlyStopping:
    return EarlyStopping.from_state(state.stateful_callbacks["EarlyStopping"])


def _reason(state: TrainerState) -> str:
    stopping = _stopping(state)
    if stopping.stopped:
        least = stopping.minimum_gain
        gained = "nothing beyond its noise" if least == "auto" else f"no more than {least:g}"
        return (
            f"early, at step {state.global_step}: validation {stopping.metric} gained {gained} "
            f"in {stopping.patience} evaluation(s)"
        )
    return f"at the last epoch, step {state.global_step}"


def _autocast(recipe: Recipe) -> torch.dtype | None:
    """The type of the products of float32 weights that are trained themselves, if not their own."""
    compute = compute_dtype(recipe.model.precision)
    alone = recipe.tune.adapters_alone or compute == torch.float32
    return None if alone else compute


def _arguments(
    settings: TuneSettings,
    recipe: Recipe,
    micro: int,
    folder: Path,
    *,
    validated: bool,
    keep: bool,
) -> TrainingArguments:
    every = settings.stopping.every
    # Without validation there is nothing to wait for between the epochs.
    strategy, steps = ("epoch", 500) if every == "epoch" or not validated else ("steps", every)
    stops = settings.stopping.metric != "none"
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=max(micro, 8),
        gradient_accumulation_steps=settings.batch_size // (micro * distributed.count()),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
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
