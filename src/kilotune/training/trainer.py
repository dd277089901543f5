"""transformers' Trainer with our loss, our evaluation, our stopping and our checkpoints."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import SAFE_WEIGHTS_NAME

from kilotune.errors import KilotuneError
from kilotune.models.pretrained import Model
from kilotune.models.sharding import of_the_leader, whole
from kilotune.models.trainable import of_adapter
from kilotune.system.os_errors import naming
from kilotune.training.activations import Activations
from kilotune.training.batches import Batch
from kilotune.training.checkpoints import rotate, seal
from kilotune.training.loss import LabelledLoss
from kilotune.training.order import Items, LengthOrder
from kilotune.training.stopping import SCORES, EarlyStopping

# Metrics by name and, where early stopping is to know their noise, the examples' `scores`.
Measure = Callable[[Model], Mapping[str, float | Sequence[float]]]


class LabelledTrainer(Trainer):
    """The Trainer with a loss over labelled tokens and a generated validation metric.

    `measure` is called at every evaluation with the model as it is and returns the generated
    metrics by name. With `activations`, batches carry hidden states and the model starts from
    them; whatever `measure` does is done with the complete model. Batches are the dictionaries that
    the Trainer wants: the fields of a `Batch`.
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

    def _get_num_items_in_batch(self, samples: list[dict[str, Any]], device: torch.device) -> Any:
        count = sum(Batch(**sample).labelled_count() for sample in samples)
        return self.accelerator.gather(torch.as_tensor(count).to(device)).sum()

    def compute_loss(
        self,
        model: Model,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The batch's share of the mean over all labelled tokens of the step."""
        assert num_items_in_batch is not None
        # Processes average their gradients; the mean is over the tokens of all of them.
        share = self.accelerator.num_processes / num_items_in_batch
        return self._loss(model, Batch(**inputs)) * share

    def _loss(self, model: Model, batch: Batch) -> torch.Tensor:
        with self._from_states():
            return self.loss.sum(model, batch)

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
            for inputs in dataloader:
                batch = Batch(**self._prepare_inputs(inputs))
                total += self._loss(model, batch).cpu().double()  # Apple's GPUs have no double
                count += int(batch.labelled_count())
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
