"""How near texts are in meaning, by a pretrained encoder: mean pooling (Reimers, Gurevych 2019)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from kilotune.augmentation.filters import Nearness
from kilotune.errors import KilotuneError
from kilotune.generation.padding import batches
from kilotune.models.builtin import BUILTIN, ENCODERS, builtin_folder
from kilotune.models.integrity import first_line
from kilotune.models.pretrained import load_beside

TOKEN_BUDGET = 4096


# Texts to vectors of length 1, of shape (texts, width).
Embedder = Callable[[Sequence[str]], torch.Tensor]


def load_embedder(source: str) -> Embedder:
    """The sentence encoder at `source`: a built-in name, a folder, or a hub id.

    Raises KilotuneError where there is none.
    """
    place = str(builtin_folder(source)) if source in {**BUILTIN, **ENCODERS} else source
    tokenizer, model = load_beside(AutoModel, place, "sentence encoder")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    return lambda texts: embedded(model, tokenizer, texts)


def check_embedder(source: str) -> None:
    """Raise KilotuneError where there is no encoder at `source`; its weights are not read."""
    if source in {**BUILTIN, **ENCODERS}:
        builtin_folder(source)
        return
    try:
        AutoConfig.from_pretrained(source)
    except Exception as error:  # the hub's and the readers' own, for every way it can be missing
        raise KilotuneError(
            f"no sentence encoder: {first_line(error)}",
            where=source,
            fix="Give the folder or the hub id of one, or fetch one: kilotune fetch minilm",
        ) from error


def load_nearness(source: str) -> Nearness:
    """The cosine of two texts' embeddings by the encoder at `source`, in [-1, 1].

    Raises KilotuneError where there is none.
    """
    embed = load_embedder(source)

    def nearness(pairs: Sequence[tuple[str, str]]) -> list[float]:
        differing = {text for one, other in pairs if one != other for text in (one, other)}
        place = {text: row for row, text in enumerate(sorted(differing))}
        vectors = embed(list(place))
        return [
            1.0 if one == other else float(vectors[place[one]] @ vectors[place[other]])
            for one, other in pairs
        ]

    return nearness


def embedded(model: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """One vector of length 1 for each text, (texts, width): the mean over its tokens' states.

    Of a text that is longer than the model takes, its beginning counts; one without a token is 0.
    """
    longest = min(
        tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 512
    )
    vectors = torch.zeros(len(texts), model.config.hidden_size)
    if not texts:
        return vectors
    rows = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    told = [index for index, ids in enumerate(rows) if ids]  # without a token there is no mean
    with torch.inference_mode():
        for batch in batches(rows, TOKEN_BUDGET, told):
            inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
            inputs = inputs.to(model.device)
            states = model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
            ).last_hidden_state.float()
            mask = inputs["attention_mask"][..., None].float()
            means = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
            vectors[batch] = torch.nn.functional.normalize(means).cpu()
    return vectors
