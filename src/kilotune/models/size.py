"""How large a model is, from its config.json alone: no weights are read, none are made."""

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch

from kilotune.errors import KilotuneError
from kilotune.models.lora import linear_classes, linear_names
from kilotune.models.lower import first_trained_layer
from kilotune.models.positions import position_limit
from kilotune.models.pretrained import Model, decoder_layers, layer_count, model_kind
from kilotune.models.source import Source
from kilotune.models.trainable import of_adapter, select_trained
from kilotune.models.tree import Branch, module_tree
from kilotune.recipe.schema import DecodingSettings, LoraSettings, Method

# Choices that every model has.
PLAIN = ("all", "all-linear", None)
# A rank that no model is too narrow for.
LEAST_WIDTH = 8


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer of every decoder layer."""

    name: str
    inputs: int
    outputs: int


@dataclass(frozen=True, slots=True)
class DecoderWidths:
    """What a token takes of each decoder layer, in numbers.

    `queries` is the width of all attention heads together, `keys` that of the keys (and of the
    values), `inner` that of the feed-forward layer (of all experts that a token goes through).
    `scores` are the heads whose attention weights are kept for the backward pass: none where
    attention is computed in pieces.
    """

    layers: int
    width: int
    inner: int
    heads: int
    queries: int
    keys: int
    scores: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class ModelSize(DecoderWidths):
    """Parameters and widths of a model; everything per layer is of one decoder layer.

    `head` is the output head's parameters, none where it is the embedding itself.
    """

    architecture: str
    parameters: int
    vision: int
    embedding: int
    head: int
    layer_parameters: int
    linears: tuple[Linear, ...]

    @property
    def products(self) -> int:
        """Parameters of a layer that each token is multiplied with."""
        return sum(linear.inputs * linear.outputs for linear in self.linears)


@dataclass(frozen=True, slots=True)
class Trained:
    """What of a model is trained: how many parameters, in how many layers, from which one up.

    Each token is multiplied with `adapters` low-rank parameters in a trained layer, whose ranks are
    `ranks` together, and with `products` parameters of its own that are trained.
    """

    parameters: int
    layers: int
    lowest: int
    adapters: int
    products: int
    ranks: int
    tree: tuple[Branch, ...] = ()

    @property
    def optimiser_bytes(self) -> int:
        """The gradient and AdamW's two moments, in float32."""
        return 3 * 4 * self.parameters


def empty_model(config: Any) -> Model:
    """The model of `config` with tensors that have shapes and no memory."""
    try:
        with torch.device("meta"):
            # The model keeps its configuration and changes it.
            return model_kind(config).from_config(deepcopy(config))
    except ValueError as error:
        raise KilotuneError(
            "not a language model that transformers can build",
            where=str(config.model_type),
            fix="Give a causal language model, or one of images and text",
        ) from error


def decoder_widths(model: Model) -> DecoderWidths:
    """The widths of `model`, which may be empty, adapted, quantised or streamed."""
    config = model.config.get_text_config(decoder=True)
    width, heads = int(config.hidden_size), int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or width // heads)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    inner = inner if isinstance(inner, int) else max(inner)  # one a layer
    each = getattr(config, "moe_intermediate_size", None) or inner
    experts = each * (getattr(config, "num_experts_per_tok", None) or 0)
    return DecoderWidths(
        layers=layer_count(model),
        width=width,
        inner=max(inner, experts),
        heads=heads,
        queries=heads * size,
        keys=int(getattr(config, "num_key_value_heads", None) or heads) * size,
        scores=heads if config._attn_implementation == "eager" else 0,
        vocabulary=model.get_input_embeddings().weight.shape[0],
    )


def model_size(model: Model) -> ModelSize:
    """Measure `model`, which may be empty. Raises KilotuneError for a mixture of experts."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "num_experts", 0) or getattr(config, "num_local_experts", 0):
        raise KilotuneError(
            "sizes are planned for dense models, and this is a mixture of experts",
            where=str(config.model_type),
            fix="Choose a dense model",
        )
    _, layers = decoder_layers(model)
    names = set(linear_names(model))
    linears = [
        Linear(name, *_in_and_out(module))
        for path, module in layers[0].named_modules()
        if (name := path.rpartition(".")[2]) in names
    ]
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    return ModelSize(
        **asdict(decoder_widths(model)),
        architecture=str(model.config.model_type),
        parameters=sum(p.numel() for p in model.parameters()),
        vision=sum(p.numel() for name, p in model.named_parameters() if "visual" in name),
        embedding=embedding.numel(),
        head=0 if head is embedding else head.numel(),
        layer_parameters=sum(p.numel() for p in layers[0].parameters()),
        linears=tuple(linears),
    )


def check_trained(source: Source, tune: Method) -> None:
    """Raise KilotuneError for layers, targets, patterns or a rank that do not suit the model.

    By its configuration, so that it is said before anything is loaded or written. What comes with
    code of its own is left to loading.
    """
    named = [getattr(tune, name, None) for name in ("layers", "target_modules")]
    plain = not (tune.trainable or tune.frozen or any(n not in PLAIN for n in named))
    plain = plain and getattr(tune, "rank", 0) <= LEAST_WIDTH
    if not (plain or source.settings.trust_remote_code):
        trained_part(empty_model(source.config), tune)


def check_answers(source: Source, decoding: DecodingSettings) -> None:
    """Raise KilotuneError for answers that may be longer than what the model has positions for."""
    wanted = decoding.max_new_tokens
    if wanted == "auto":
        return
    positions = position_limit(source.config)
    if positions is not None and wanted >= positions:
        raise KilotuneError(
            f"{source.settings.name} has {positions:,} positions for prompt and answer",
            where=f"decoding.max_new_tokens={wanted}",
            fix="Give fewer, or auto, which goes by the lengths of the answers",
        )


def trained_part(model: Model, settings: Method) -> Trained:
    """What `settings` train of the empty `model`, which is changed as they say.

    Raises KilotuneError for layers, targets, biases or patterns there are not, and for a rank that
    is too large.
    """
    if isinstance(settings, LoraSettings):
        _check_rank(model, settings.rank)
    with torch.device("meta"):
        model = select_trained(model, settings, seed=0)
    return measure_trained(model)


def measure_trained(model: Model) -> Trained:
    """What of `model` is trained, as it is."""
    name, _ = decoder_layers(model)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    inside = [(n.removeprefix(f"{name}."), p) for n, p in trained if n.startswith(f"{name}.")]
    layers = {n.partition(".")[0] for n, _ in inside}
    adapters = sum(p.numel() for n, p in inside if of_adapter(n) and p.ndim == 2)
    products = sum(p.numel() for n, p in inside if not of_adapter(n) and p.ndim == 2)
    ranks = sum(len(p) for n, p in inside if "lora_A" in n)
    each = max(1, len(layers))
    return Trained(
        parameters=sum(p.numel() for _, p in trained),
        layers=len(layers),
        lowest=first_trained_layer(model),
        adapters=adapters // each,
        products=products // each,
        ranks=ranks // each,
        tree=module_tree(model),
    )


def _check_rank(model: Model, rank: int) -> None:
    """Raise KilotuneError for adapters that would be larger than every layer they can be put on."""
    linear = linear_classes()
    sides = [_in_and_out(module) for module in model.modules() if isinstance(module, linear)]
    widest = max(map(min, sides), default=rank)
    if rank > widest:
        raise KilotuneError(
            f"no linear layer of the model is wider than {widest:,}, and adapters of a higher rank "
            "are larger than what they adapt",
            where=f"tune.rank={rank}",
            fix="Choose a lower one, or tune.method=full",
        )


def _in_and_out(module: Any) -> tuple[int, int]:
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    inputs, outputs = module.weight.shape  # GPT-2's Conv1D
    return inputs, outputs
