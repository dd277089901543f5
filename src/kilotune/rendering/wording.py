"""How an example is put into words: a system message, a question around its text, its label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kilotune.data.example import Example, Message
from kilotune.errors import KilotuneError
from kilotune.rendering.spelling import spelling

# Small instruct models obey a system message better when the user's turn repeats its form: of
# the wordings tried on SmolLM2, this made the base model name a label most often.
SYSTEM = "Classify the text. Answer with one of these labels and nothing else: {labels}."
QUESTION = "Text: {text}\nLabel:"


@dataclass(frozen=True, slots=True)
class Wording:
    """The system message, the form of the user's turn, in which `{text}` stands once, and what
    those labels are called that the model knows by other names than the data.
    """

    system: str
    question: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def told(self, labels: Sequence[str]) -> list[str]:
        """What each of `labels` is called to the model."""
        return [self.labels.get(label, label) for label in labels]

    def meant(self, called: str) -> str:
        """The label that is called so to the model; anything else as it is."""
        return next((label for label, name in self.labels.items() if name == called), called)

    def apply(self, example: Example) -> Example:
        """The example as it is put to a model. Its id and label stay as they are."""
        asked = self._answered(example)
        if self.question != "{text}":
            asked = asked.between(*self.question.split("{text}", 1))
        if not self.system or asked.messages[0].role == "system":
            return asked
        return replace(asked, messages=(Message("system", self.system), *asked.messages))

    def _answered(self, example: Example) -> Example:
        """The example with its label, if it has one, called as the model is to call it."""
        called = self.labels.get(example.label or "")
        if called is None or example.answer is None:
            return example
        return replace(example, messages=(*example.prompt, Message("assistant", called)))


def wording(
    system: str | None,
    question: str | None,
    labels: Sequence[str],
    label_wording: str | Mapping[str, str] = "as_is",
) -> Wording:
    """The recipe's wording, or the defaults; `{labels}` lists the labels as `label_wording` has it.

    Without labels the default is no system message, and the user's turn as it is. Raises
    KilotuneError for a question without `{text}`, for `{labels}` where there are none, and for
    labels that could not be told apart.
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
    called = spelling(label_wording, labels)
    named = [called.get(label, label) for label in labels]
    if label_wording == "letters":  # which say nothing by themselves
        named = [f"{letter} ({label})" for letter, label in zip(named, labels, strict=True)]
    return Wording(told.replace("{labels}", ", ".join(named)), asked, called)
