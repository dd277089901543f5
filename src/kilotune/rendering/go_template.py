"""A chat template translated into Go's text/template, which Ollama fills in."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kilotune.data.example import Message
from kilotune.errors import KilotuneError
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate

# A pair of neighbouring roles, "" before the first message and behind the last.
Pair = tuple[str, str]

# The forms of conversations that are tried: every pair of neighbours, in several places.
FORMS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("user", "assistant", "user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
MARK = re.compile(r"kilotune(\d+)x")


@dataclass(frozen=True, slots=True)
class GoTemplate:
    """A template for Ollama: its text, and what the original does that Go's cannot say.

    `strips`: the original takes white space off the ends of messages. `adds_bos`: the token that
    texts begin with is left out, since the tokenizer puts it there.
    """

    text: str
    strips: bool
    adds_bos: bool


def go_template(template: ChatTemplate) -> GoTemplate:
    """Translate `template` for a conversation in `.Messages`, as Ollama gives it.

    What stands between two messages is found out by trying, and depends on nothing but their
    roles: then the same text can be written in Go's terms. Raises KilotuneError where it depends
    on more, where messages are changed, or where their order is.
    """
    between = _between(template)
    bos = template.tokenizer.bos_token if template.wants_bos else None
    starts = [pair for pair in between if pair[0] == ""]
    adds_bos = bool(bos) and all(between[pair].startswith(str(bos)) for pair in starts)
    if adds_bos:
        between |= {pair: between[pair].removeprefix(str(bos)) for pair in starts}
    elif bos:
        raise _untranslatable(f"it does not begin with '{bos}', which the tokenizer would add")
    strips = " kilotune0x " not in template.prompt_text([Message("user", " kilotune0x ")])
    return GoTemplate(_written(between), strips, adds_bos)


def _between(template: ChatTemplate) -> dict[Pair, str]:
    """What the template writes between two neighbours, by their roles."""
    found: dict[Pair, str] = {}
    for roles in FORMS:
        messages = [Message(role, f"kilotune{place}x") for place, role in enumerate(roles)]
        try:
            text = template.prompt_text(messages)
        except RenderError as error:
            raise _untranslatable(error.what) from error
        pieces = MARK.split(text)
        if pieces[1::2] != [str(place) for place in range(len(roles))]:
            raise _untranslatable("it changes, leaves out or moves messages")
        pairs = pairwise(("", *roles, ""))
        for pair, own in zip(pairs, pieces[::2], strict=True):
            if found.setdefault(pair, own) != own:
                raise _untranslatable(
                    f"between {pair[0] or 'the beginning'} and {pair[1] or 'the answer'} it "
                    "writes now one text, now another"
                )
    return found


def _written(between: Mapping[Pair, str]) -> str:
    """A loop over the messages that remembers the role before."""
    roles = ("system", "user", "assistant")
    branches = [
        (f"eq .Role {_literal(role)}", [*_texts(between, role), "{{- .Content }}"])
        for role in roles
    ]
    # An answer that was begun is gone on with, and not opened again.
    opening = f"{{{{- {_literal(between['user', ''])} }}}}"
    return "\n".join(
        [
            '{{- $before := "" }}',
            "{{- range .Messages }}",
            *_branching(branches),
            "{{- $before = .Role }}",
            "{{- end }}",
            '{{- if ne $before "assistant" }}',
            opening,
            "{{- end -}}",
        ]
    )


def _texts(between: Mapping[Pair, str], role: str) -> list[str]:
    """Lines that write what stands before a message of `role`."""
    texts = {before: own for (before, after), own in between.items() if after == role}
    *others, last = dict.fromkeys(texts.values())
    branches = []
    for own in others:
        roles = " ".join(_literal(before) for before, text in texts.items() if text == own)
        branches.append((f"eq $before {roles}", [f"{{{{- {_literal(own)} }}}}"]))
    rest = f"{{{{- {_literal(last)} }}}}"
    return list(_branching(branches, [rest])) if branches else [rest]


def _branching(
    branches: Sequence[tuple[str, Sequence[str]]], rest: Sequence[str] = ()
) -> Iterator[str]:
    """The lines of the first branch whose condition holds, else of `rest`."""
    for number, (condition, lines) in enumerate(branches):
        yield f"{{{{- {'else if' if number else 'if'} {condition} }}}}"
        yield from lines
    if rest:
        yield "{{- else }}"
        yield from rest
    yield "{{- end }}"


def _literal(text: str) -> str:
    """A string constant of Go's. Ollama's files drop what cannot be printed: it is spelt out."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)


def _untranslatable(why: str) -> KilotuneError:
    return KilotuneError(
        f"the chat template cannot be translated for Ollama: {why}",
        where="TEMPLATE",
        fix="Export for a program that runs the template itself: --to vllm or --to "
        "gguf-instructions",
    )
