"""A conversation with the tuned model of a run and, beside it, with the model as it came."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from pydantic import ValidationError

from kilotune.data.example import Example, Message, Origin, Task
from kilotune.data.tasks import CONVERSING
from kilotune.errors import KilotuneError
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import decoding_settings
from kilotune.models.pretrained import Model
from kilotune.models.source import locate
from kilotune.progress import Silent
from kilotune.recipe.functions import MODEL
from kilotune.recipe.schema import DecodingSettings, Recipe
from kilotune.runs.documents import DataDocument
from kilotune.runs.record import RunFolder
from kilotune.session.loading import open_tuned

BASE, TUNED = "base model", "tuned model"
FIELDS = tuple(name for name in DecodingSettings.model_fields if name != "search")


@dataclass(slots=True)
class Chat:
    """Both models of a run, what was said to each so far, and how they answer.

    Where a task is of single questions (`classify`, `extract`) each is asked anew, as in training.
    """

    recipe: Recipe
    task: Task
    model: Model
    prompting: Prompting
    history: dict[str, list[Message]] = field(default_factory=dict)
    turns: int = 0
    _untuned: Model | None = None

    @property
    def settings(self) -> DecodingSettings:
        """How answers are decoded now."""
        return decoding_settings(self.prompting.generation)

    def set(self, name: str, value: str) -> None:
        """Change one field of the decoding. Raises KilotuneError for what it cannot be."""
        if name not in FIELDS:
            fix = f"Choose: {', '.join(FIELDS)}"
            raise KilotuneError(f"there is no decoding setting '{name}'", fix=fix)
        given: object = value
        if name == "stop":
            given = () if value == "none" else (value.replace("\\n", "\n"),)
        try:
            chosen = DecodingSettings.model_validate({**self.settings.model_dump(), name: given})
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise KilotuneError(f"{name} cannot be '{value}': {why}") from error
        self.prompting = self.prompting.decoding(chosen)

    def reset(self) -> None:
        """Forget what was said."""
        self.history.clear()
        self.turns = 0

    def ask(self, name: str, text: str, show: Callable[[str], None]) -> None:
        """Have the model `name` answer `text`; `show` is given its answer as it grows.

        An answer that Ctrl-C stops counts as far as it came. Raises KilotuneError for what cannot
        be put to the model.
        """
        said = ""

        def seen(answer: str) -> None:
            nonlocal said
            said = answer
            show(answer)

        before = self.history.get(name, []) if self.task in CONVERSING else []
        asked = [*before, Message("user", text)]
        example = Example("chat:1", tuple(asked), Origin("chat", 1))
        prompting = replace(self.prompting, seed=self.prompting.seed + self.turns)
        try:
            with self._speaking(name) as model:
                (answer,) = prompting.answers(model, [example], Silent(), name, show=seen)
            seen(answer.text)
        finally:
            self.history[name] = [*asked, Message("assistant", said)] if said else before

    @contextmanager
    def _speaking(self, name: str) -> Iterator[Model]:
        if name == TUNED:
            yield self.model
        elif hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield self.model
        else:
            if self._untuned is None:
                self._untuned = locate(self.recipe.model).model(torch.float32)
            yield self._untuned


def chat(run: str | Path, *, trust_code: bool = False) -> Chat:
    """A chat with the models of the finished run in `run`.

    Raises KilotuneError for a model with code of its own unless `trust_code`.
    """
    folder = RunFolder(Path(run))
    recipe = folder.read_recipe(trust_code=trust_code, runs=MODEL)
    folder.check_finished()
    data = folder.read(DataDocument)
    model, prompting = open_tuned(folder.path, recipe, data.labels, pictured=False)
    return Chat(recipe, data.task, model, prompting)
