"""Added tokens that no tokenizer calls special: which are the template's own, which the model's."""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import takewhile

from kilotune.data.checks.markup import TAGS
from kilotune.data.example import Message
from kilotune.rendering.encoding import Tokenizer, special_ids, spelling
from kilotune.rendering.template import Arguments, ChatTemplate

# Arguments by which published templates leave thoughts out (Qwen3, DeepSeek V3.1).
THOUGHTLESS: tuple[Arguments, ...] = ({"enable_thinking": False}, {"thinking": False})
# Arguments that ask for thoughts by the same names.
THOUGHTFUL: tuple[Arguments, ...] = ({"enable_thinking": True}, {"thinking": True})

SYSTEM, ASKED, SAID = "kilotune-system", "kilotune-question", "kilotune-answer"

# Written like a marker: <think>, <|tool|>, [TOOL], ◁think▷.
MARKER = re.compile(r"<[^\s<>]+>|\[[^\s\[\]]+\]|\{[^\s{}]+\}|◁[^\s◁▷]+▷")
# Vocabularies (Gemma's) hold tags of HTML, which are what texts are made of.
HTML = re.compile(rf"</?(?:{TAGS}|caption|tfoot|s|del|mark|cite|dl|dt|dd)/?>", re.IGNORECASE)


def markers(template: ChatTemplate) -> tuple[list[str], list[str]]:
    """Added tokens not called special: those that make turns, and the model's own words.

    Turns are made of what the template writes around messages, whether answers hold thoughts or
    not; so `<think>` that opens some answers is none. The model's own words are all others that
    are written like markers, but tags of HTML. Other added tokens are words like any.
    """
    added = _ordinary_added(template.tokenizer)
    if not added:
        return [], []
    written = "\0".join(_around_messages(template))
    turns = set(spelling(added).findall(written))
    own = [name for name in added if MARKER.fullmatch(name) and not HTML.fullmatch(name)]
    return sorted(turns), sorted(set(own) - turns)


def _ordinary_added(tokenizer: Tokenizer) -> Collection[str]:
    special = special_ids(tokenizer)
    added = tokenizer.added_tokens_decoder.items()
    # Runs of spaces or line breaks are added tokens in some vocabularies.
    return [t.content for i, t in added if i not in special and t.content.strip(" \t\r\n▁")]


def _around_messages(template: ChatTemplate) -> Iterator[str]:
    """What the template writes outside of contents; of what opens answers, what all have alike."""
    question, answer = Message("user", ASKED), Message("assistant", SAID)
    system = [Message("system", SYSTEM)] if template.takes_system else []
    for messages in ([*system, question, answer], [question, answer, question, answer]):
        layout = template.layout(messages)
        at = 0
        for slot in layout.slots:
            if messages[slot.message].role != "assistant":
                yield layout.text[at : slot.start]
            at = slot.end
        yield layout.text[at:]
    openings = [template.prompt_text([question])]
    for arguments in (*THOUGHTLESS, *THOUGHTFUL):
        other = replace(template, arguments={**template.arguments, **arguments})
        openings.append(other.text([question], generation_prompt=True))
    behind = zip(*(opening.rpartition(ASKED)[2] for opening in openings), strict=False)
    yield "".join(signs[0] for signs in takewhile(lambda signs: len(set(signs)) == 1, behind))
