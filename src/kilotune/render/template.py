"""A chat template at work: messages to text, text to token ids, and where answers begin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilotune.data.example import Image, Message
from kilotune.data.finding import Finding
from kilotune.render.encoding import Encoder, Tokenizer
from kilotune.render.faults import RenderError
from kilotune.render.layout import Layout, Slot, lay_out

Arguments = Mapping[str, bool | int | str]


@dataclass(frozen=True, slots=True)
class Opening:
    """What the template writes between a prompt and its answer.

    For generation a prompt ends with `asked`, and in training with `told` in its place: both are
    empty where the template is consistent. Otherwise kilotune writes `told` in both. `lead` is
    the white space that stands before an answer without being part of the prompt: it is trained,
    since generation has to write it.
    """

    asked: str = ""
    told: str = ""
    lead: str = ""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A tokenizer, a chat template, and what was found out about the two together.

    `takes_system` says whether a system message is accepted; one that is not is put before the
    first user message. `writes_parts` says that contents must be lists of parts; `image_text` is
    what the template writes for an image, None where it cannot. `stop_id` is the token that ends
    an answer, `model_stops` are those that the model's own settings stop at.
    """

    tokenizer: Tokenizer
    encoder: Encoder
    source: str
    arguments: Arguments
    takes_system: bool = True
    writes_parts: bool = False
    image_text: str | None = None
    default_system: str = ""
    opening: Opening = Opening()
    stop_id: int = -1
    wants_bos: bool = False
    model_stops: frozenset[int] = frozenset()
    findings: tuple[Finding, ...] = field(default=())

    @property
    def ends(self) -> frozenset[int]:
        """The control tokens that can end an answer.

        The one for unknown characters may stand in an answer, unless it is the end token itself.
        """
        unknown = {self.tokenizer.unk_token_id} - {self.tokenizer.eos_token_id, self.stop_id}
        return self.encoder.control - unknown

    def fitting(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as this template takes them: a system message may have to move."""
        return tuple(messages) if self.takes_system else without_system(messages)

    def text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text, control tokens spelled out.

        Raises RenderError with the template's own words when it rejects the conversation.
        """
        turns = [{"role": m.role, "content": self._content(m)} for m in self.fitting(messages)]
        try:
            text: str = self.tokenizer.apply_chat_template(
                turns,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self.arguments,
            )
        except Exception as error:  # templates raise whatever Jinja and their authors raise
            raise RenderError("template-refuses", str(error) or type(error).__name__) from error
        return text

    def layout(self, messages: Sequence[Message]) -> Layout:
        """Fitting messages as training text, and where their contents lie. Raises RenderError."""
        try:
            return lay_out(self.text, messages)
        except RenderError as error:
            written = self._written_by_the_model(messages)
            if error.code != "answer-rewritten" or written is None:
                raise
            return written

    def prompt_text(self, messages: Sequence[Message]) -> str:
        """What generation starts from: the messages and the opening of an answer.

        Raises RenderError when this conversation's opening is not that of every other.
        """
        return self._told(self.text(messages, generation_prompt=True))

    def prompt(self, messages: Sequence[Message]) -> Layout:
        """The `prompt_text` of fitting messages, and where their contents lie in it."""
        asked = lay_out(lambda some: self.text(some, generation_prompt=True), messages)
        return Layout(self._told(asked.text), asked.slots)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids that generation starts from. Raises RenderError."""
        messages = self.fitting(messages)
        simple = all(message.role != "assistant" for message in messages)
        if simple and not any(self.encoder.spells_control(message.text) for message in messages):
            return self.encode(self.prompt_text(messages))
        prompt = self.prompt(messages)
        ids, _ = self.encode_layout(prompt, messages, self.borders(prompt, messages))
        return ids

    def borders(self, layout: Layout, messages: Sequence[Message]) -> list[int]:
        """Where the prompt of each answer in `layout` ends, in order."""
        return [
            slot.start - self._lead_before(layout, slot)
            for slot in layout.slots
            if messages[slot.message].role == "assistant"
        ]

    def encode_layout(
        self, layout: Layout, messages: Sequence[Message], borders: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """The ids of a layout and the number of ids before each border.

        What messages say never becomes a control token. Raises RenderError for a spelling of one in
        a message that the template rewrites, since nothing tells it from the template's own.
        """
        spelling = [i for i, m in enumerate(messages) if self.encoder.spells_control(m.text)]
        found = {slot.message for slot in layout.slots}
        if not found.issuperset(spelling):
            raise RenderError("special-in-rewritten")
        ordinary = [(s.start, s.end) for s in layout.slots if s.message in spelling]
        return self.encoder.encode(layout.text, ordinary, borders)

    def encode(self, text: str) -> list[int]:
        """Token ids of template text; the template has put every special token there itself."""
        return self.encoder.encode(text)[0]

    def _told(self, asked: str) -> str:
        """A generation prompt with the opening that training has."""
        if not asked.endswith(self.opening.asked):
            raise RenderError("prompt-mismatch")
        return asked[: len(asked) - len(self.opening.asked)] + self.opening.told

    def _lead_before(self, layout: Layout, slot: Slot) -> int:
        lead = self.opening.lead
        return len(lead) if lead and layout.text.endswith(lead, 0, slot.start) else 0

    def _content(self, message: Message) -> Any:
        if not self.writes_parts and (self.image_text is None or not message.images):
            return message.text
        return [
            {"type": "image"} if isinstance(part, Image) else {"type": "text", "text": part}
            for part in message.parts
        ]

    def _written_by_the_model(self, messages: Sequence[Message]) -> Layout | None:
        """The layout where the last answer stands whole behind the generation prompt.

        So it is with thoughts: templates take them apart and put them together again.
        """
        last = len(messages) - 1
        if messages[last].role != "assistant":
            return None
        text, prompt = self.text(messages), self.prompt(messages[:last])
        answer = messages[last].text.strip()
        start = len(prompt.text)
        start += len(text[start:]) - len(text[start:].lstrip())
        if not (text.startswith(prompt.text) and text.startswith(answer, start)):
            return None
        return Layout(text, (*prompt.slots, Slot(start, start + len(answer), last)))


def without_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The conversation with its system message put before the first user's words."""
    if len(messages) < 2 or messages[0].role != "system" or messages[1].role != "user":
        return tuple(messages)
    system, first, *rest = messages
    break_ = "\n\n" if first.text else ""
    return (first.between(f"{system.text}{break_}"), *rest)
