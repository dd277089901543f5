"""Plain transformers and peft, as a model card tells to use them, one prompt at a time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import torch
from peft import PeftModel
from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

from kilotune.data.example import Image, Message
from kilotune.data.images.pixels import open_picture
from kilotune.errors import KilotuneError
from kilotune.exports.finished import Finished
from kilotune.models.identity import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from kilotune.models.integrity import NOT_OF_THE_FILE, first_line
from kilotune.models.pretrained import Model, best_device, model_kind
from kilotune.models.quantisation import load_quantised
from kilotune.verification.programs import Artefact, Put, whole_model

# What stands for each token of a prompt, and for none of an answer's: of images and of texts.
BY_TOKEN = ("mm_token_type_ids", "token_type_ids")


@dataclass(slots=True)
class PlainTransformers:
    """A folder that transformers loads, or peft beside its base model."""

    model: Model
    reader: Any
    generation: GenerationConfig
    arguments: dict[str, Any]
    title: str
    form: str
    size: int
    sees: bool
    quantised: bool = False

    @classmethod
    def merged(cls, artefact: Artefact) -> Self:
        """The whole model in a folder. Raises KilotuneError where transformers loads none."""
        finished, folder = artefact.finished, whole_model(artefact.path, "transformers")
        kind, size = model_kind(finished.source.config), _size(folder, "model*.safetensors")
        model = _loaded(folder, lambda: kind.from_pretrained(folder, dtype=finished.dtype))
        title = f"transformers {version('transformers')}"
        found = cls._of(model.to(best_device()), folder, finished, title, size)
        # Adapters of quantised weights were added to whole ones.
        found.quantised = finished.has_adapter and finished.recipe.model.quantization != "none"
        return found

    @classmethod
    def adapter(cls, artefact: Artefact) -> Self:
        """An adapter beside the run's base model. Raises KilotuneError where peft loads none."""
        finished, folder = artefact.finished, artefact.path
        if not (folder / ADAPTER_CONFIG).is_file():
            raise KilotuneError(
                f"nothing that peft loads: no {ADAPTER_CONFIG}",
                where=str(folder),
                fix="Export the adapter: kilotune export RUN --to adapter -o FOLDER",
            )
        if finished.source.renamed:
            raise KilotuneError(
                "peft has no class for a first-generation Qwen without that model's own code",
                where=str(folder),
                fix="Verify the whole model: kilotune export RUN --to merged -o FOLDER",
            )
        settings, place = finished.recipe.model, finished.source.place
        kind, dtype = model_kind(finished.source.config), getattr(torch, finished.dtype)
        quantised = settings.quantization != "none"
        if quantised:  # as it was judged
            base = load_quantised(kind, place, settings, dtype, best_device())
        else:
            base = kind.from_pretrained(place, dtype=dtype).to(best_device())
        model = _loaded(folder, lambda: PeftModel.from_pretrained(base, folder))
        title = f"peft {version('peft')}"
        found = cls._of(model, folder, finished, title, _size(folder, ADAPTER_WEIGHTS))
        if quantised:
            found.form = settings.quantization
        return found

    @classmethod
    def _of(cls, model: Model, folder: Path, finished: Finished, title: str, size: int) -> Self:
        sees = finished.source.sees_images
        reader = (AutoProcessor if sees else AutoTokenizer).from_pretrained(folder)
        generation = GenerationConfig.from_pretrained(folder)
        arguments = {**finished.template.arguments}
        return cls(model.eval(), reader, generation, arguments, title, finished.dtype, size, sees)

    @property
    def greedy(self) -> bool:
        """Whether the folder's own settings say so."""
        return not self.generation.do_sample

    def put(self, messages: Sequence[Message]) -> Put:
        """The prompt by the folder's own template and tokenizer or processor."""
        turns = [{"role": m.role, "content": self._content(m)} for m in messages]
        inputs = self.reader.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **self.arguments,
        ).to(self.model.device)
        return Put(tuple(inputs["input_ids"][0].tolist()), dict(inputs))

    def answer(self, put: Put) -> tuple[int, ...]:
        """What the model generates by the folder's own settings."""
        stops = {"tokenizer": self._tokenizer} if self.generation.stop_strings else {}
        with torch.inference_mode():
            made = self.model.generate(**put.inputs, generation_config=self.generation, **stops)
        return tuple(made[0, len(put.token_ids) :].tolist())

    def behind(self, put: Put, said: Sequence[int], tokens: Collection[int]) -> float | None:
        """By the model's own probabilities; None where a penalty has a say in answers."""
        if self.generation.repetition_penalty not in (None, 1.0):
            return None
        inputs = dict(put.inputs)
        ids = inputs["input_ids"]
        inputs["input_ids"] = torch.cat([ids, ids.new_tensor([list(said)])], dim=1).long()
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        for name in BY_TOKEN:
            if name in inputs:
                more = inputs[name].new_zeros(1, len(said))
                inputs[name] = torch.cat([inputs[name], more], dim=1)
        with torch.inference_mode():
            logits = self.model(**inputs).logits[0, -1].float()
        return float(logits.max() - logits[sorted(tokens)].max())

    def close(self) -> None:
        """Nothing holds the model but this."""
        del self.model

    @property
    def _tokenizer(self) -> Any:
        return self.reader.tokenizer if self.sees else self.reader

    def _content(self, message: Message) -> Any:
        if not self.sees:
            return message.text
        return [
            {"type": "image", "image": open_picture(part)}
            if isinstance(part, Image)
            else {"type": "text", "text": part}
            for part in message.parts
        ]


def _loaded(folder: Path, load: Any) -> Model:
    try:
        return load()
    except NOT_OF_THE_FILE:
        raise
    except Exception as error:  # the libraries' own, for every way a file can be broken
        raise KilotuneError(
            f"cannot be loaded ({first_line(error)})",
            where=str(folder),
            fix="Export it again, and compare: kilotune export RUN -o FOLDER",
        ) from error


def _size(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))
