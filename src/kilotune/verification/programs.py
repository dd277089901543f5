"""The programs that can be asked, each a small adapter of one protocol."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.exports.finished import Finished


@dataclass(frozen=True, slots=True)
class Put:
    """A prompt as a program reads it: its token ids, and whatever else the program is given."""

    token_ids: tuple[int, ...]
    inputs: Any = field(default=None, compare=False, repr=False)


class Program(Protocol):
    """An exported model, loaded by a program and ready to answer.

    `title` is the program with its version, `form` the precision or quantisation of the weights;
    `size` are the bytes of the weights on disk. `quantised` says that the weights are other numbers
    than those that were judged.
    """

    title: str
    form: str
    quantised: bool
    size: int

    @property
    def greedy(self) -> bool:
        """Whether it decodes greedily unasked."""
        ...

    def put(self, messages: Sequence[Message]) -> Put:
        """The prompt by the program's own template and tokenizer."""
        ...

    def answer(self, put: Put) -> tuple[int, ...]:
        """The tokens of the answer, with the one that ended it."""
        ...

    def behind(self, put: Put, said: Sequence[int], tokens: Collection[int]) -> float | None:
        """How much likelier, in nats, the likeliest next token is than the likeliest of `tokens`.

        Next behind the prompt and the first tokens `said`; None where the program does not say.
        """
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


@dataclass(frozen=True, slots=True)
class Artefact:
    """What is to be verified: a folder or file of a form of export, and the run it is of.

    `at` is the address of a program that serves it already, "" where it is to be loaded here.
    """

    path: Path
    finished: Finished
    at: str = ""


def _transformers(artefact: Artefact) -> Program:
    from kilotune.verification.plain_transformers import PlainTransformers

    return PlainTransformers.merged(artefact)


def _peft(artefact: Artefact) -> Program:
    from kilotune.verification.plain_transformers import PlainTransformers

    return PlainTransformers.adapter(artefact)


def _llama_cpp(artefact: Artefact) -> Program:
    from kilotune.verification.llama_cpp import LlamaCpp

    return LlamaCpp.of(artefact)


def _mlx(artefact: Artefact) -> Program:
    from kilotune.verification.mlx import Mlx

    return Mlx.of(artefact)


PROGRAMS: dict[str, Callable[[Artefact], Program]] = {
    "transformers": _transformers,
    "peft": _peft,
    "llama.cpp": _llama_cpp,
    "mlx": _mlx,
}


def turns_of_text(messages: Sequence[Message], name: str, program: str) -> list[dict[str, str]]:
    """The messages as chat templates take them. Raises KilotuneError where they have images.

    `name` is that of PROGRAMS, `program` what it is called.
    """
    if any(message.images for message in messages):
        raise KilotuneError(
            f"the prompts have images, and kilotune puts none to {program}",
            where=f"--in {name}",
            fix="Verify the folder in transformers: --in transformers",
        )
    return [{"role": message.role, "content": message.text} for message in messages]


def whole_model(path: Path, program: str) -> Path:
    """The folder of the whole model in an export at `path`. Raises KilotuneError without one."""
    folder = path if (path / "config.json").is_file() else path / "model"
    if not (folder / "config.json").is_file():
        raise KilotuneError(
            f"nothing that {program} loads: no config.json",
            where=str(path),
            fix="Export the whole model: kilotune export RUN --to merged -o FOLDER",
        )
    return folder


def natural_program(path: Path) -> str:
    """The program that an export at `path` is for. Raises KilotuneError where it is of no form."""
    if path.suffix == ".gguf":
        return "llama.cpp"
    for name, program in (
        ("adapter_config.json", "peft"),
        ("config.json", "transformers"),
        ("*.gguf", "llama.cpp"),
        ("model/config.json", "transformers"),
    ):
        if any(path.glob(name)):
            return program
    raise KilotuneError(
        "neither an exported folder nor a GGUF file",
        where=str(path),
        fix="Give what `kilotune export` wrote: kilotune verify FOLDER",
    )


def open_program(name: str, artefact: Artefact) -> Program:
    """The program `name` with the artefact loaded.

    Raises KilotuneError for another name, and where the program is not there or cannot load it.
    """
    if name not in PROGRAMS:
        raise KilotuneError(
            f"no program '{name}' is known",
            where="--in",
            fix=f"Choose: {', '.join(PROGRAMS)}",
        )
    return PROGRAMS[name](artefact)
