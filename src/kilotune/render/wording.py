"""How an example is put into words: a system message before it, a question around its text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kilotune.data.example import Example, Message
from kilotune.errors import KilotuneError

# Small instruct models obey a system message better when the user's turn repeats its form: of
# the wordings tried on SmolLM2, this made the base model name a label most often.
SYSTEM = "Classify the text. Answer with one of these labels and nothing else: {labels}."
QUESTION = "Text: {text}\nLabel:"


@dataclass(frozen=True, slots=True)
class Wording:
    """The system message and the form of the user's turn, in which `{text}` stands once."""

    system: str
    question: str

    def apply(self, example: Example) -> Example:
        """The example as it is put to a model. Its id, label and answer stay as they are."""
        asked = example
        if self.question != "{text}":
            asked = example.between(*self.question.split("{text}", 1))
        if not self.system or asked.messages[0].role == "system":
            return asked
        return replace(asked, messages=(Message("system", self.system), *asked.messages))


def wording(system: str | None, question: str | None, labels: Sequence[str]) -> Wording:
    """The recipe's wording, or the defaults; `{labels}` lists the labels.

    Without labels the default is no system message, and the user's turn as it is. Raises
    KilotuneError for a question without `{text}`, and for `{labels}` where there are none.
    """
    asked = (QUESTION if labels else "{text}") if question is None else question
    if "{text}" not in asked:
        raise KilotuneError(
            "the question has no {text} to put the text in",
            where="data.question",
            fix=f"Write it like {QUESTION!r}",
        )
    told = (SYSTEM if labels else "") if system is None else system
    if "{labels}" in told and not labels:
        raise KilotuneError(
            "the system message lists {labels}, and the task has none",
            where="data.system",
            fix="Leave {labels} out of it, or make the task classify (--task classify)",
        )
    return Wording(told.replace("{labels}", ", ".join(labels)), asked)
