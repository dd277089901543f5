"""mlx-lm (MIT), Apple's: it runs on a processor under Linux too, with `mlx-cpu`."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Self

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.exports.finished import Decoding
from kilotune.models.integrity import NOT_OF_THE_FILE, first_line
from kilotune.system.extras import extra
from kilotune.verification.programs import Artefact, Put, turns_of_text, whole_model

GET_IT = "pip install mlx-lm (under Linux also mlx-cpu, of the same version as mlx)"


@dataclass(slots=True)
class Mlx:
    """A merged model that mlx-lm loads."""

    model: Any
    tokenizer: Any
    arguments: dict[str, Any]
    decoding: Decoding
    title: str
    form: str
    size: int
    quantised: bool
    longest: int

    @classmethod
    def of(cls, artefact: Artefact) -> Self:
        """The whole model in a folder. Raises KilotuneError where mlx-lm is not, or loads none."""
        finished, folder = artefact.finished, whole_model(artefact.path, "mlx-lm")
        library = extra("mlx_lm", where="--in mlx", fix=GET_IT)
        try:
            model, tokenizer = library.load(str(folder))
        except NOT_OF_THE_FILE:
            raise
        except Exception as error:  # the library's own, for every kind of model it does not know
            raise KilotuneError(
                f"mlx-lm cannot load it ({first_line(error)})",
                where=str(folder),
                fix="Verify it in another program: --in transformers",
            ) from error
        decoding = finished.decoding
        return cls(
            model=model,
            tokenizer=tokenizer,
            arguments={**finished.template.arguments},
            decoding=decoding,
            title=f"mlx-lm {version('mlx-lm')}",
            form=finished.dtype,
            size=sum(file.stat().st_size for file in folder.glob("model*.safetensors")),
            quantised=finished.has_adapter and finished.recipe.model.quantization != "none",
            longest=finished.recipe.data.max_length + decoding.max_new_tokens,
        )

    @property
    def greedy(self) -> bool:
        """mlx-lm is, unless it is asked to sample."""
        return True

    def put(self, messages: Sequence[Message]) -> Put:
        """The prompt by the folder's own template and tokenizer. Images raise KilotuneError."""
        turns = turns_of_text(messages, "mlx", "mlx-lm")
        ids = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=False, **self.arguments
        )
        return Put(tuple(ids))

    def answer(self, put: Put) -> tuple[int, ...]:
        """What mlx-lm generates, as far as a token that the folder says ends answers."""
        core = extra("mlx.core", where="--in mlx", fix=GET_IT)
        generate = extra("mlx_lm.generate", where="--in mlx", fix=GET_IT).generate_step
        tools = extra("mlx_lm.sample_utils", where="--in mlx", fix=GET_IT)
        penalty = self.decoding.sampling["repetition_penalty"]
        processors = tools.make_logits_processors(
            repetition_penalty=None if penalty == 1 else penalty,
            repetition_context_size=self.longest,
        )
        said: list[int] = []
        made = generate(
            core.array(put.token_ids),
            self.model,
            max_tokens=self.decoding.max_new_tokens,
            logits_processors=processors,
        )
        for token, _ in made:
            said.append(int(token))
            if said[-1] in self.tokenizer.eos_token_ids:
                break
        return tuple(said)

    def behind(self, put: Put, said: Sequence[int], tokens: Collection[int]) -> float | None:
        """By the model's own logits; None where a penalty has a say in answers."""
        if self.decoding.sampling["repetition_penalty"] != 1:
            return None
        core = extra("mlx.core", where="--in mlx", fix=GET_IT)
        logits = self.model(core.array([[*put.token_ids, *said]]))[0, -1].astype(core.float32)
        best = max(float(logits[token]) for token in tokens)
        return float(logits.max()) - best

    def close(self) -> None:
        """Nothing holds the model but this."""
        del self.model
