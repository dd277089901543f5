"""What a chat template does, found out by trying it once on messages of our own."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from kilotune.data.example import Image, Message
from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError
from kilotune.recipe.schema import TEMPLATES
from kilotune.rendering.encoding import Tokenizer, encoder, token_id
from kilotune.rendering.image_tokens import Pictures
from kilotune.rendering.layout import Layout
from kilotune.rendering.markers import ASKED, SAID, SYSTEM, THOUGHTLESS, markers
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.supplied import MARKERS, TemplateChoice, choose_template, wants_bos
from kilotune.rendering.template import Arguments, ChatTemplate, Opening

BEFORE = "kilotune-before"


def chat_template(
    tokenizer: Tokenizer,
    wanted: str = "auto",
    arguments: Arguments | None = None,
    *,
    model_stops: Collection[int] = (),
    pictures: Pictures | None = None,
) -> ChatTemplate:
    """Choose the template of `tokenizer` and find out what it does.

    `wanted` and `arguments` are the recipe's `chat_template` and `template_arguments`;
    `model_stops` the tokens that the model's generation settings stop at; `pictures` what its
    processor makes of images. Answers are taken to hold thoughts of their own where an argument
    asks for thinking, and only there. Raises KilotuneError when the template cannot be used, or
    when answers have no end to be learnt.
    """
    where = str(getattr(tokenizer, "name_or_path", "") or "tokenizer")
    choice = choose_template(tokenizer, wanted)
    stops = frozenset(model_stops) or frozenset({tokenizer.eos_token_id} - {None})
    template = ChatTemplate(
        tokenizer,
        encoder(tokenizer, choice.markers),
        choice.source,
        dict(arguments or {}),
        wants_bos=wants_bos(tokenizer),
        model_stops=stops,
        pictures=pictures,
        origin=where if wanted in TEMPLATES else wanted,
    )
    try:
        template = _with_forms(template)
        template, said = _with_opening(template)
        turns, own = markers(template)
    except RenderError as error:
        raise KilotuneError(error.what, where=where, fix=error.fix) from error
    template = replace(template, default_system=_default_system(template))
    template = replace(template, encoder=encoder(tokenizer, [*choice.markers, *turns], own))
    template = _with_stop(template, choice, where)
    return replace(template, findings=tuple(_findings(template, [*choice.findings, *said])))


def _with_forms(template: ChatTemplate) -> ChatTemplate:
    """Whether contents are strings or parts, and whether system messages and images fit in."""
    question = Message("user", ASKED)
    if not _shows(template, [question], ASKED):
        parts = replace(template, writes_parts=True)
        if _shows(parts, [question], ASKED):
            template = parts
    told = [Message("system", SYSTEM), question]
    # Mistral Nemo's shows it in prompts and drops it from what they are trained on.
    takes_system = all(
        _shows(template, messages, SYSTEM, ASKED)
        for messages in (told, [*told, Message("assistant", SAID)])
    )
    return replace(template, takes_system=takes_system, image_text=_image_text(template))


def _image_text(template: ChatTemplate) -> str | None:
    """What the template writes for an image; None where it has no place for any."""
    seeing = replace(template, image_text="")
    picture = Message("user", (BEFORE, Image("x"), ASKED))
    if not _shows(seeing, [picture], BEFORE, ASKED):
        return None
    text = seeing.text([picture])
    between = text.split(BEFORE, 1)[1].split(ASKED, 1)[0]
    if between.strip():
        return between
    # LLaVA's puts all images of a message before its words.
    bare = seeing.text([Message("user", (f"{BEFORE}{between}{ASKED}", Image("x")))])
    without = seeing.text([Message("user", f"{BEFORE}{between}{ASKED}")])
    return _inserted(without, bare) or None


def _inserted(before: str, after: str) -> str:
    """What `after` has that `before` has not, in one place."""
    pairs = enumerate(zip(before, after, strict=False))
    start = next((i for i, (a, b) in pairs if a != b), len(before))
    return after[start : start + len(after) - len(before)]


def _shows(template: ChatTemplate, messages: list[Message], *words: str) -> bool:
    try:
        text = template.text(messages)
    except RenderError:
        return False
    # A template that expects a string prints a list of parts, as Python or JSON does.
    listed = "'type'" in text or '"type"' in text
    return all(word in text for word in words) and not listed


def _with_opening(template: ChatTemplate) -> tuple[ChatTemplate, list[Finding]]:
    """The arguments, and the way of opening answers, that serve training and generation alike.

    The template's own generation prompt where its training text goes on from it, with one of the
    THOUGHTLESS arguments if need be (unless the user gave some); else what training opens with.
    """
    given = template.arguments
    thinks = any(given.get(name) is True for arguments in THOUGHTLESS for name in arguments)
    own = _opening(template, thinks)
    if own == Opening(lead=own.lead):
        return replace(template, opening=own), []
    for arguments in () if given else THOUGHTLESS:
        other = replace(template, arguments=arguments)
        opening = _opening(other, thinks)
        if opening == Opening(lead=opening.lead):
            (said,) = (f"{name}={value}".lower() for name, value in arguments.items())
            found = [finding("template-arguments", detail=said)]
            return replace(other, opening=opening), found
    detail = f"{own.told!r} where generation asks for {own.asked!r}"
    return replace(template, opening=own), [finding("opening-differs", detail=detail)]


def _opening(template: ChatTemplate, thinks: bool) -> Opening:
    """How the template opens answers. Raises RenderError when that depends on the conversation."""
    answer = f"<think>\nso\n</think>\n\n{SAID}" if thinks else SAID
    system = [Message("system", SYSTEM)]
    question = [Message("user", ASKED)]
    earlier = [*question, Message("assistant", "b")]
    found = set()
    for messages in (question, [*system, *question], [*earlier, *question]):
        asked = template.text(messages, generation_prompt=True)
        said = [*messages, Message("assistant", answer)]
        told = _before_last(template.layout(said), len(messages))
        found.add(_difference(asked, told))
    if len(found) > 1:
        raise RenderError("prompt-mismatch")
    return found.pop()


def _before_last(layout: Layout, message: int) -> str:
    return layout.text[: layout.slot(message).start]


def _difference(asked: str, told: str) -> Opening:
    shared = next(
        (i for i, (a, b) in enumerate(zip(asked, told, strict=False)) if a != b),
        min(len(asked), len(told)),
    )
    # Not from the middle of a tag: `<think>` differs from `</think>` as a whole.
    tag = asked.rfind("<", 0, shared)
    if tag >= 0 and ">" not in asked[tag:shared]:
        shared = tag
    asked, told = asked[shared:], told[shared:]
    if not asked and not told.strip():
        return Opening(lead=told)
    return Opening(asked, told)


def _default_system(template: ChatTemplate) -> str:
    """The system message that the template inserts where there is none."""
    if not template.takes_system:
        return ""
    question = Message("user", ASKED)
    told = template.text([Message("system", SYSTEM), question])
    before, after = told.split(SYSTEM, 1)
    after = after.split(ASKED, 1)[0]
    alone = template.text([question]).split(ASKED, 1)[0]
    fits = alone.startswith(before) and alone.endswith(after)
    return alone[len(before) : len(alone) - len(after)].strip() if fits else ""


def _with_stop(template: ChatTemplate, choice: TemplateChoice, where: str) -> ChatTemplate:
    """The control token behind an answer, else the tokenizer's own end."""
    messages = (Message("user", ASKED), Message("assistant", SAID))
    layout = template.layout(messages)
    behind = template.encode(layout.text[layout.slot(1).end :])
    stop: int | None = next((i for i in behind if i in template.encoder.special.control), None)
    if stop is None:
        stop = template.tokenizer.eos_token_id
    if stop is None and choice.markers:
        stop = token_id(template.tokenizer, MARKERS[1])
    if stop is None:
        raise KilotuneError(
            "neither the chat template nor the tokenizer ends an answer",
            where=where,
            fix="Set the tokenizer's eos_token",
        )
    return replace(template, stop_id=stop)


def _findings(template: ChatTemplate, said: Iterable[Finding]) -> Iterable[Finding]:
    yield from said
    if template.stop_id not in template.model_stops:
        name = template.tokenizer.convert_ids_to_tokens(template.stop_id)
        yield finding("stop-differs", detail=str(name))
