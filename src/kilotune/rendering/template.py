"""A chat template at work: messages to text, text to token ids, and where answers begin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kilotune.data.example import Image, Message
from kilotune.data.finding import Finding
from kilotune.errors import KilotuneError
from kilotune.rendering.encoding import Encoder, Tokenizer
from kilotune.rendering.image_tokens import Pictures, expanded
from kilotune.rendering.layout import Layout, Slot, lay_out
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.sandbox import rendered
from kilotune.rendering.sizes import TemplateLimitError

Arguments = Mapping[str, bool | int | str]

# Forms of conversations remembered, by their messages with marks for contents.
KEPT = 200


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
    what the template writes for an image, None where it cannot, and `pictures` what a processor
    makes of it (without one it stays as the template writes it). `stop_id` is the token that ends
    an answer, `model_stops` are those that the model's own settings stop at. `origin` is the file
    or the folder that the template is from.
    """

    tokenizer: Tokenizer
    encoder: Encoder
    source: str
    arguments: Arguments
    takes_system: bool = True
    writes_parts: bool = False
    image_text: str | None = None
    pictures: Pictures | None = None
    default_system: str = ""
    opening: Opening = Opening()
    stop_id: int = -1
    wants_bos: bool = False
    model_stops: frozenset[int] = frozenset()
    findings: tuple[Finding, ...] = field(default=())
    origin: str = "tokenizer"
    # What was found out on the way; each copy of a template begins anew.
    seen: dict[object, str] = field(default_factory=dict, init=False, compare=False, repr=False)
    turns_kept: dict[tuple[str, ...], bool] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @property
    def ends(self) -> frozenset[int]:
        """The control tokens that can end an answer.

        The one for unknown characters may stand in an answer, unless it is the end token itself.
        """
        unknown = {self.tokenizer.unk_token_id} - {self.tokenizer.eos_token_id, self.stop_id}
        return self.encoder.special.control - unknown

    def fitting(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The messages as this template takes them: a system message may have to move."""
        return tuple(messages) if self.takes_system else without_system(messages)

    def text(self, messages: Sequence[Message], *, generation_prompt: bool = False) -> str:
        """The conversation as text, control tokens spelled out.

        Raises RenderError with the template's own words when it rejects the conversation, and
        KilotuneError for a template that takes too long or makes too much.
        """
        if not messages:
            raise RenderError("empty-conversation")
        turns = [{"role": m.role, "content": self._content(m)} for m in self.fitting(messages)]
        given: dict[str, Any] = {"tools": None, "documents": None}
        given |= {**self.tokenizer.special_tokens_map, **self.arguments}
        given |= {"messages": turns, "add_generation_prompt": generation_prompt}
        try:
            return rendered(self.source, **given)
        except TemplateLimitError as error:
            raise KilotuneError(
                f"the chat template {error}",
                where=self.origin,
                fix="Use another with --chat-template",
            ) from error
        except Exception as error:  # templates raise whatever Jinja and their authors raise
            raise RenderError("template-refuses", str(error) or type(error).__name__) from error

    def layout(self, messages: Sequence[Message]) -> Layout:
        """Fitting messages as training text, and where their contents lie. Raises RenderError."""
        try:
            return lay_out(self.text, messages, self._shown)
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
        asked = lay_out(self._asked, messages, self._asked_shown)
        return Layout(self._told(asked.text), asked.slots)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids that generation starts from. Raises RenderError."""
        messages = self.fitting(messages)
        simple = all(message.role != "assistant" for message in messages)
        if simple and not any(map(self.spells, messages)):
            ids = self.encode(self.prompt_text(messages))
            return self._with_images(ids, (), messages)[0]
        prompt = self.prompt(messages)
        ids, _ = self.encode_layout(prompt, messages, self.borders(prompt, messages))
        return ids

    def keeps_turns(self, roles: tuple[str, ...]) -> bool:
        """Whether in conversations of this form each answer's prompt is what training shows.

        Tried with contents that are plain letters, and remembered.
        """
        if roles not in self.turns_kept:
            messages = [Message(role, f"kilotune{place}x") for place, role in enumerate(roles)]
            self.turns_kept[roles] = self.same_when_earlier(self.layout(messages), messages)
        return self.turns_kept[roles]

    def same_when_earlier(self, layout: Layout, messages: Sequence[Message]) -> bool:
        """Whether the prompt of each earlier answer in `layout` is what generation starts from."""
        turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
        starts = self.borders(layout, messages)
        return len(starts) == len(turns) and all(
            self.prompt_text(messages[:turn]) == layout.text[:start]
            for turn, start in list(zip(turns, starts, strict=True))[:-1]
        )

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

        What messages say never becomes a control token, nor, but in answers, one of the model's
        own words. Raises RenderError for a spelling of one in a message that the template
        rewrites, since nothing tells it from the template's own.
        """
        spelling = {i for i, message in enumerate(messages) if self.spells(message)}
        if not spelling <= {slot.message for slot in layout.slots}:
            raise RenderError("special-in-rewritten")
        answers = {i for i, message in enumerate(messages) if message.role == "assistant"}
        ordinary = [
            stretch
            for slot in layout.slots
            if slot.message in spelling
            for stretch in self.encoder.special.ordinary(
                layout.text, slot.start, slot.end, answer=slot.message in answers
            )
        ]
        ids, places = self.encoder.encode(layout.text, ordinary, borders)
        return self._with_images(ids, places, messages)

    def spells(self, message: Message) -> bool:
        """Whether the message spells a token that must not come from it."""
        return self.encoder.special.spells(message.text, answer=message.role == "assistant")

    def encode(self, text: str) -> list[int]:
        """Token ids of template text; the template has put every special token there itself."""
        return self.encoder.encode(text)[0]

    def _asked(self, messages: Sequence[Message]) -> str:
        return self.text(messages, generation_prompt=True)

    def _shown(self, messages: Sequence[Message]) -> str:
        return self._once(messages, generation_prompt=False)

    def _asked_shown(self, messages: Sequence[Message]) -> str:
        return self._once(messages, generation_prompt=True)

    def _once(self, messages: Sequence[Message], *, generation_prompt: bool) -> str:
        """The `text` of messages that will be asked for again."""
        key = (generation_prompt, *messages)
        if key not in self.seen:
            if len(self.seen) > KEPT:
                self.seen.clear()
            self.seen[key] = self.text(messages, generation_prompt=generation_prompt)
        return self.seen[key]

    def _told(self, asked: str) -> str:
        """A generation prompt with the opening that training has."""
        if not asked.endswith(self.opening.asked):
            raise RenderError("prompt-mismatch")
        return asked[: len(asked) - len(self.opening.asked)] + self.opening.told

    def _lead_before(self, layout: Layout, slot: Slot) -> int:
        lead = self.opening.lead
        return len(lead) if lead and layout.text.endswith(lead, 0, slot.start) else 0

    def _with_images(
        self, ids: list[int], places: Sequence[int], messages: Sequence[Message]
    ) -> tuple[list[int], list[int]]:
        images = [image for message in messages for image in message.images]
        if not images or self.pictures is None or self.image_text is None:
            return ids, list(places)
        return expanded(ids, places, images, self.pictures)

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
