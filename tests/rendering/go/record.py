"""What Go itself makes of the translated templates, kept in rendered.json.

`python -m tests.rendering.go.record` runs main.go beside this file, which needs Go (Debian's
golang-go will do), and is to be repeated whenever a translation changes. Tests read the file alone.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from kilotune.data.example import Message
from kilotune.rendering.go_template import go_template
from kilotune.rendering.probe import chat_template
from kilotune.rendering.template import ChatTemplate
from tests.rendering.kinds import KINDS, Kind
from tests.support.tiny import byte_tokenizer

FOLDER = Path(__file__).parent
RECORD = FOLDER / "rendered.json"
QUESTION = Message("user", 'Is "{{ .Content }}" a\nGo template? 模板 😀 \\n')
SYSTEM = Message("system", "Be brief, and say <b>yes</b> & no.")
ANSWER = Message("assistant", "{{ yes }}")
CONVERSATIONS: tuple[tuple[Message, ...], ...] = (
    (QUESTION,),
    (SYSTEM, QUESTION),
    (QUESTION, ANSWER, QUESTION),
    (SYSTEM, QUESTION, ANSWER, QUESTION, ANSWER, QUESTION),
)


def translated(kind: Kind) -> tuple[ChatTemplate, str]:
    """The chat template of a kind, and its translation."""
    template = chat_template(byte_tokenizer(kind.source, **kind.settings()))
    return template, go_template(template).text


def plain(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Messages as JSON and as Jinja templates take them."""
    return [{"role": message.role, "content": message.text} for message in messages]


def record() -> dict[str, dict[str, Any]]:
    """By kind: the translation, and the text that Go makes with it of each conversation."""
    texts = {kind.name: translated(kind)[1] for kind in KINDS}
    cases = [
        {"Template": text, "Messages": plain(messages)}
        for text in texts.values()
        for messages in CONVERSATIONS
    ]
    done = subprocess.run(
        ["go", "run", FOLDER / "main.go"],
        input=json.dumps(cases), capture_output=True, text=True, check=True,
    )  # fmt: skip
    made = iter(json.loads(done.stdout))
    return {
        name: {"template": text, "texts": [next(made) for _ in CONVERSATIONS]}
        for name, text in texts.items()
    }


if __name__ == "__main__":
    RECORD.write_text(json.dumps(record(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
