"""What every form of export is made from: a finished run, and nothing but its records."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kilotune.models.identity import ADAPTER_CONFIG
from kilotune.models.integrity import read_json
from kilotune.models.source import Source, locate, source_at
from kilotune.models.tuned_weights import ADAPTER, tuned_folder, tuned_generation
from kilotune.recipe.functions import MODEL
from kilotune.recipe.schema import Recipe
from kilotune.rendering.probe import chat_template
from kilotune.rendering.template import ChatTemplate
from kilotune.rendering.wording import Wording
from kilotune.runs.documents import DataDocument, JudgedEnvironmentDocument
from kilotune.runs.record import RunFolder

# What they are called in the metadata of a GGUF file.
GGUF_SAMPLING = {
    "temperature": "temp", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}  # fmt: skip
# Which decoding parameters serving programs know, and the values that do nothing.
NEUTRAL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the run's answers were generated, for programs whose defaults are others.

    `sampling` has every parameter of NEUTRAL and `temperature`, 0 for greedy; `stops` are the
    texts of the tokens that end an answer, `stop_strings` other texts that do.
    """

    sampling: dict[str, float]
    max_new_tokens: int
    stops: tuple[str, ...]
    stop_strings: tuple[str, ...] = ()

    @property
    def gguf_metadata(self) -> dict[str, float]:
        """The same as metadata of a GGUF file, which programs take their defaults from."""
        return {
            f"general.sampling.{GGUF_SAMPLING[name]}": value
            for name, value in self.sampling.items()
        }


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder and its recipe; the rest is read when it is asked for."""

    folder: RunFolder
    recipe: Recipe

    @property
    def name(self) -> str:
        """The run's name as programs that serve models allow names."""
        return re.sub(r"[^a-z0-9._-]+", "-", self.title.lower()).strip("-._") or "tuned"

    @property
    def title(self) -> str:
        """The run's name."""
        return self.folder.path.resolve().name

    @property
    def tuned(self) -> Path:
        """Where the tuned weights are."""
        return tuned_folder(self.folder.path)

    @property
    def has_adapter(self) -> bool:
        """Whether the weights are an adapter's, beside a model that stayed as it was."""
        return self.tuned.name == ADAPTER

    @cached_property
    def source(self) -> Source:
        """The base model. Raises KilotuneError where it is gone."""
        return locate(self.recipe.model)

    @cached_property
    def adapter(self) -> dict[str, Any]:
        """What the adapter's own `adapter_config.json` says."""
        return read_json(self.tuned / ADAPTER_CONFIG)

    @cached_property
    def data(self) -> DataDocument:
        """The run's `data.json`."""
        return self.folder.read(DataDocument)

    @property
    def dtype(self) -> str:
        """The type that the weights were judged in, such as `bfloat16`."""
        return self.folder.read(JudgedEnvironmentDocument).dtype.removeprefix("torch.")

    @property
    def wording(self) -> Wording:
        """The system message, and the form of the user's turn."""
        return self.data.wording

    @property
    def system(self) -> str:
        """The system message of every prompt: the data's own, else that of the wording."""
        own = self.data.own_system
        return (own.text if own else None) or self.wording.system

    @property
    def systems_differ(self) -> bool:
        """Whether prompts had system messages of their own, and not all the same."""
        own = self.data.own_system
        return own is not None and own.text is None

    @cached_property
    def template(self) -> ChatTemplate:
        """The chat template that the run was tuned and judged with."""
        settings = self.recipe.model
        tokenizer = source_at(self.tuned, settings).tokenizer()
        return chat_template(tokenizer, arguments=settings.template_arguments)

    @cached_property
    def decoding(self) -> Decoding:
        """How answers were generated."""
        config = tuned_generation(self.tuned)
        given = {name: getattr(config, name, None) for name in NEUTRAL}
        used = given if config.do_sample else {"repetition_penalty": given["repetition_penalty"]}
        set_ = {name: value for name, value in used.items() if value is not None}
        heat = config.temperature if config.do_sample else 0.0
        tokenizer = self.template.tokenizer
        return Decoding(
            {"temperature": 1.0 if heat is None else heat, **NEUTRAL, **set_},
            config.max_new_tokens,
            tuple(str(tokenizer.convert_ids_to_tokens(token)) for token in config.eos_token_id),
            tuple(config.stop_strings or ()),
        )


def open_finished(run: Path, *, trust_code: bool = False) -> Finished:
    """The run in the folder `run`. Raises KilotuneError unless it is a run, and finished.

    And for a model with code of its own unless `trust_code`.
    """
    folder = RunFolder(run)
    recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
    folder.check_finished()
    return Finished(folder, recipe)
