"""Models larger than memory: the lower layers stay on disk, each read when it is its turn."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.func import functional_call

from kilotune.errors import KilotuneError, some
from kilotune.models.checkpoint import Checkpoint
from kilotune.models.integrity import check_held
from kilotune.models.lora import layer_indices
from kilotune.models.pretrained import Model, best_device, decoder_layers, model_kind
from kilotune.models.source import Source
from kilotune.recipe.schema import LoraSettings, TuneSettings


class StreamedLayer(torch.nn.Module):
    """A decoder layer whose weights are on disk, read for each forward and let go after it.

    It has no parameters of its own: nothing to move, to save, to adapt or to train.
    """

    def __init__(
        self, layer: torch.nn.Module, checkpoint: Checkpoint, prefix: str, dtype: torch.dtype
    ) -> None:
        super().__init__()
        # In a tuple, so that its empty weights are no parameters of the model.
        self._empty = (layer.eval().requires_grad_(False),)
        self._checkpoint, self._prefix, self._dtype = checkpoint, prefix, dtype
        self._held: dict[str, torch.Tensor] | None = None

    @property
    def layer(self) -> torch.nn.Module:
        """The layer itself, its weights empty."""
        return self._empty[0]

    def tensors(
        self, device: torch.device, dtype: torch.dtype | None = None
    ) -> dict[str, torch.Tensor]:
        """The layer's weights by their names within it, read now; in `dtype`, if given."""
        names = self.layer.state_dict().keys()
        read = self._checkpoint.load(
            [self._prefix + n for n in names], dtype or self._dtype, device
        )
        return {name: read[self._prefix + name] for name in names}

    @contextmanager
    def held(self, device: torch.device, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Inside the `with` the weights stay in memory, in `dtype` if given, for many forwards."""
        self._held = self.tensors(device, dtype)
        try:
            yield
        finally:
            self._held = None

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the layer's own."""
        weights = self._held or self.tensors(hidden_states.device)
        return functional_call(self.layer, weights, (hidden_states, *args), kwargs)


def streamed_below(source: Source, tune: TuneSettings, dtype: torch.dtype, available: int) -> int:
    """The layers under this number are to stay on disk; 0 loads the model whole.

    With `tune.streaming: auto` that is when its weights exceed `available` bytes. Raises
    KilotuneError where streaming is asked for and cannot be.
    """
    if tune.streaming == "never" or source.settings.quantization != "none":
        return 0
    total = int(source.config.get_text_config().num_hidden_layers)
    below = 0
    if isinstance(tune, LoraSettings) and tune.adapters_alone:
        below = min(layer_indices(tune.layers, total))
    if tune.streaming == "always":
        if not below:
            raise KilotuneError(
                "only layers below the lowest adapted one can be streamed, and there are none",
                where="tune.streaming",
                fix="Set tune.method=lora and tune.layers=top:4, or fewer; no tune.trainable",
            )
        return below
    if not below or not source.streamable:
        return 0
    return below if source.checkpoint().parameters() * dtype.itemsize > available else 0


def load_base(source: Source, tune: TuneSettings, dtype: torch.dtype, available: int) -> Model:
    """The model of `source`: whole, or with its lower layers on disk as `tune` has it."""
    if below := streamed_below(source, tune, dtype, available):
        return load_streamed(source, dtype, below)
    return source.model(dtype)


def load_streamed(source: Source, dtype: torch.dtype, below: int) -> Model:
    """The model of `source` with its layers under `below` left on disk.

    It is the complete model, and generates as any other; each forward reads those layers once.
    Raises KilotuneError for a checkpoint whose names or shapes are not the model's own.
    """
    trust = source.settings.trust_remote_code
    config = deepcopy(source.config)  # the model keeps and changes it
    if getattr(config, "quantization_config", None):
        raise KilotuneError(
            "a quantised checkpoint cannot be streamed",
            where=source.place,
            fix="Set tune.streaming=never",
        )
    checkpoint = source.checkpoint()
    with init_empty_weights(include_buffers=False):
        model = model_kind(config).from_config(config, dtype=dtype, trust_remote_code=trust)
    name, layers = decoder_layers(model)
    _check_names(model, checkpoint)
    check_held(model, checkpoint.shapes(), str(checkpoint.folder))
    for index in range(below):
        layers[index] = StreamedLayer(layers[index], checkpoint, f"{name}.{index}.", dtype)
    present = [name for name in model.state_dict() if name in checkpoint]
    resident = checkpoint.load(present, dtype, best_device())
    model.load_state_dict(resident, strict=False, assign=True)
    model.tie_weights()
    model.to(best_device())
    if generation := source.generation():
        model.generation_config = generation
    return model.eval()


def streamed_layers(model: Model) -> list[tuple[str, StreamedLayer]]:
    """The layers of `model` that stay on disk, by name; empty for a model loaded whole."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, StreamedLayer)]


def _check_names(model: Model, checkpoint: Checkpoint) -> None:
    """Every parameter is in the checkpoint, but for output heads tied to the embeddings."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    missing = [name for name in model.state_dict() if name not in checkpoint and name not in tied]
    if missing:
        raise KilotuneError(
            f"the checkpoint has no {some(missing)} under these names, and cannot be streamed",
            where=str(checkpoint.folder),
            fix="Load the model and save it with save_pretrained, or set tune.streaming=never",
        )
