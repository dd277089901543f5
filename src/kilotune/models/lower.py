"""The layers below the lowest one that is trained: what leaves them never changes."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch.nn.modules.dropout import _DropoutNd

from kilotune.models.pretrained import Model, decoder_layers
from kilotune.models.streaming import StreamedLayer


def first_trained_layer(model: Model) -> int:
    """The number of the lowest layer that must be computed in training; those below are frozen.

    0 where something before the layers is trained, such as the embeddings. What a model registers
    behind its layers (the last norm, a head of its own) is taken to come after them: whoever
    leaves out the lower layers checks the gradient. With nothing else trained it is the last one.
    """
    name, layers = decoder_layers(model)
    parameters = list(model.named_parameters())
    inside = [n.startswith(f"{name}.") for n, _ in parameters]
    end = len(inside) - inside[::-1].index(True)
    trained = [(place, n) for place, (n, p) in enumerate(parameters) if p.requires_grad]
    if not trained or any(place < end and not inside[place] for place, _ in trained):
        return 0
    numbers = [n.removeprefix(f"{name}.").partition(".")[0] for p, n in trained if inside[p]]
    return min(map(int, numbers), default=len(layers) - 1)


def active_dropout(model: Model, below: int) -> list[str]:
    """Names of what would drop values at random in the embeddings or in layers under `below`."""
    name, layers = decoder_layers(model)
    upper = tuple(f"{name}.{index}." for index in range(below, len(layers)))
    found = []
    for path, module in _modules(model):
        if f"{path}.".startswith(upper):
            continue
        rates = {"p": module.p} if isinstance(module, _DropoutNd) else vars(module)
        found += [
            f"{path}.{key}"
            for key, rate in rates.items()
            if (key == "p" or key.endswith("dropout")) and isinstance(rate, float) and rate > 0
        ]
    return found


@contextmanager
def bypassed(model: Model, below: int) -> Iterator[None]:
    """Inside the `with`, layers under `below` hand on what they are given.

    With hidden states as `inputs_embeds` the model then starts at layer `below`; every module
    keeps its name and its place. For training and scoring alone: nothing is put into a key/value
    cache by a layer that is passed by, so `generate` would count positions wrongly.
    """
    _, layers = decoder_layers(model)
    with _replaced(layers[:below], _hand_on):
        yield


@contextmanager
def entering(model: Model, below: int) -> Iterator[list[torch.Tensor]]:
    """Inside the `with`, every forward adds to a list what enters layer `below`."""
    _, layers = decoder_layers(model)
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        caught.append(args[0].detach())

    hook = layers[below].register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        hook.remove()


def run_layers(model: Model, span: range, inputs: Mapping[str, torch.Tensor]) -> Any:
    """What leaves the layers of `span`, without gradients: hidden states (B, L, width).

    `inputs` are the model's own; `inputs_embeds` are hidden states unless `span` starts at 0. The
    layers behind `span`, the last norm and the output head are never reached.
    """
    _, layers = decoder_layers(model)

    def stop(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(hidden_states)

    with (
        torch.no_grad(),
        _replaced(layers[: span.start], _hand_on),
        _replaced(layers[span.stop : span.stop + 1], stop),
    ):
        try:
            model(**inputs, use_cache=False)
        except _Reached as reached:
            return reached.hidden_states
    raise RuntimeError(f"the forward of {type(model).__name__} never came to layer {span.stop}")


@contextmanager
def in_float32(model: Model, index: int) -> Iterator[None]:
    """Inside the `with`, the weights of layer `index` are float32; then they are as before."""
    layer = decoder_layers(model)[1][index]
    if isinstance(layer, StreamedLayer):
        with layer.held(model.device, torch.float32):
            yield
        return
    before = [(tensor, tensor.data) for tensor in (*layer.parameters(), *layer.buffers())]
    try:
        for tensor, data in before:  # not `layer.float()`, which puts other buffers into the layer
            if tensor.is_floating_point():
                tensor.data = data.float()
        yield
    finally:
        for tensor, data in before:
            tensor.data = data


def identity(
    model: Model,
    below: int,
    digests: Mapping[str, str],
    autocast: torch.dtype | None,
    lens: str = "",
) -> str:
    """A digest of all that the states entering layer `below` depend on, but for texts and images.

    `digests` are those of the frozen tensors by name, `lens` says how images are made ready.
    Positions count from 0 in every example, and the configuration says what is made of them.
    """
    name, layers = decoder_layers(model)
    upper = tuple(f"{name}.{index}." for index in range(below, len(layers)))
    # peft puts its own prefix before every name; the weights are the same.
    prefix = "base_model.model." if hasattr(model, "peft_config") else ""
    weights = sorted(
        (n.removeprefix(prefix), digest) for n, digest in digests.items() if not n.startswith(upper)
    )
    config = model.config.to_dict()
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    facts = {
        "weights": weights,
        "below": below,
        "config": config,
        "precision": [str(model.dtype), str(autocast), model.device.type],
        "transformers": transformers.__version__,
        **({"images": lens} if lens else {}),
    }
    return hashlib.blake2b(json.dumps(facts, default=str).encode(), digest_size=16).hexdigest()


class _Reached(Exception):  # noqa: N818 - it ends a forward, and is no error
    def __init__(self, hidden_states: Any) -> None:
        super().__init__()
        self.hidden_states = hidden_states


def _hand_on(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
    return hidden_states


@contextmanager
def _replaced(layers: Iterable[torch.nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Other forwards on the layers themselves: the class's own is hidden, and comes back."""
    chosen = list(layers)
    before = [vars(layer).get("forward") for layer in chosen]
    for layer in chosen:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, own in zip(chosen, before, strict=True):
            del layer.forward
            if own is not None:
                layer.forward = own


def _modules(model: Model) -> Iterator[tuple[str, torch.nn.Module]]:
    for path, module in model.named_modules():
        inner = module.layer if isinstance(module, StreamedLayer) else module
        if inner is module:
            yield path, module
        else:
            yield from ((f"{path}.{name}", part) for name, part in inner.named_modules())
