"""What other programs leave in texts: HTML, and the markers of chat templates."""

import re
from collections.abc import Sequence

from kilotune.data.checks.characters import rows_with
from kilotune.data.example import Example
from kilotune.data.finding import Finding, about_rows

TAGS = (
    "a|abbr|article|b|blockquote|body|br|button|center|code|div|em|footer|form|h[1-6]|head|header|"
    "hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|option|p|pre|script|section|select|"
    "small|span|strong|style|sub|sup|table|tbody|td|textarea|th|thead|title|tr|u|ul|video"
)
# A tag that closes, stands for itself or has an attribute, or an entity. A lone `<p>` may be what
# a text talks about.
HTML = re.compile(
    rf"</(?:{TAGS})\s*>|<(?:br|hr)\s*/?>|<(?:{TAGS})\s+[a-z-]+\s*=[^<>]*>"
    r"|&(?:amp|nbsp|lt|gt|quot|apos|mdash|ndash|hellip|[lr][sd]quo|#\d{2,6}|#x[0-9a-f]{2,5});",
    re.IGNORECASE,
)
# Who speaks of it means it.
ABOUT_HTML = re.compile(r"\b(?:x?html5?|css|xml|markup|web ?pages?)\b|网页", re.IGNORECASE)
# What is quoted as code is meant.
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
# When so many answers have HTML, HTML is what is to be written.
SUBJECT_SHARE = 0.5

MARKERS = re.compile(
    r"<\|[\w/.-]{1,40}\|>"  # ChatML, Llama 3, Phi, GLM, Qwen
    r"|<｜[^<>｜]{1,40}｜>"  # DeepSeek
    r"|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS)\]"  # Mistral, Llama 2
    r"|</?(?:start|end)_of_(?:turn|image)>"  # Gemma
    r"|</?s>|<(?:bos|eos|pad|unk|sop|eop)>|\[(?:gMASK|sMASK|CLS|SEP|PAD)\]"
)


def html_remains(examples: Sequence[Example]) -> list[Finding]:
    """Tags and entities outside quoted code; in answers, unless most answers have them.

    Conversations that speak of HTML are left alone.
    """
    asking = {e.id for e in examples if any(_has_html(message.text) for message in e.prompt)}
    answering = {e.id for e in examples if e.answer is not None and _has_html(e.answer)}
    if len(answering) > SUBJECT_SHARE * len(examples):
        answering = set()
    rows = [e.id for e in examples if e.id in asking | answering and not _about_html(e)]
    return about_rows("html-remains", rows)


def template_markers(examples: Sequence[Example]) -> list[Finding]:
    """Markers of chat templates inside texts, which may be read as the end of a turn."""
    return about_rows("template-markers", rows_with(examples, _has_marker))


def _has_html(text: str) -> bool:
    if "<" not in text and "&" not in text:
        return False
    if not HTML.search(text):
        return False
    return "`" not in text or bool(HTML.search(CODE.sub("", text)))


def _about_html(example: Example) -> bool:
    # Words of the tags themselves do not count. What is quoted once is spoken of everywhere.
    return any(
        ABOUT_HTML.search(HTML.sub(" ", m.text))
        or any(HTML.search(code) for code in CODE.findall(m.text))
        for m in example.messages
    )


def _has_marker(text: str) -> bool:
    return ("<" in text or "[" in text) and bool(MARKERS.search(text))
