"""What operations ask of models, whoever answers: writing, and guessing a word in its context.

Operations need no torch; a run gives them its own pretrained model in this form.
"""

from collections.abc import Sequence
from typing import Protocol

from kilotune.data.example import Message
from kilotune.errors import KilotuneError

Conversation = tuple[Message, ...]


class Writer(Protocol):
    """A chat model that writes the next message of conversations."""

    @property
    def name(self) -> str:
        """What the model is called."""

    def write(
        self, conversations: Sequence[Conversation], *, temperature: float, seed: int
    ) -> list[str]:
        """One answer for each conversation, "" where it did not come to an end."""


class Gap(Protocol):
    """A word and what stands on both sides of it."""

    @property
    def left(self) -> str:
        """The text before the word."""

    @property
    def word(self) -> str:
        """The word that stands there."""

    @property
    def right(self) -> str:
        """The text after it."""


class Guesser(Protocol):
    """A language model that knows which words may stand in a place."""

    def guesses(self, gaps: Sequence[Gap]) -> list[list[tuple[str, float]]]:
        """Other words for each gap, the likeliest first.

        With each, how much likelier (in nats) it makes the whole sentence than its own word.
        """


class Translator(Protocol):
    """One pivot: into its language and back. `name` tells its translations from all others."""

    @property
    def name(self) -> str:
        """What the translator is called, with its model."""

    def there(self, sentences: Sequence[str]) -> list[str]:
        """Each sentence in the other language."""

    def back(self, sentences: Sequence[str]) -> list[str]:
        """Each sentence of the other language in the first one."""


class Models(Protocol):
    """The models at hand."""

    def writer(self) -> Writer:
        """A chat model. Raises KilotuneError where there is none."""

    def guesser(self) -> Guesser:
        """A language model for words in context. Raises KilotuneError where there is none."""

    def translator(self, name: str, seed: int) -> Translator:
        """Sequence-to-sequence models as one pivot, as `translation.translator` names them."""


class NoModels:
    """No model at hand."""

    def writer(self) -> Writer:
        """Raise KilotuneError."""
        raise _lacking()

    def guesser(self) -> Guesser:
        """Raise KilotuneError."""
        raise _lacking()

    def translator(self, name: str, seed: int) -> Translator:
        """Raise KilotuneError."""
        raise _lacking()


def _lacking() -> KilotuneError:
    return KilotuneError("this operation needs a model", fix="Name one with model.name")
