"""What is wrong with renderings: faults of the chat template that training would hide."""

from collections.abc import Iterable, Sequence

from kilotune.data.example import Example
from kilotune.data.finding import Finding
from kilotune.errors import some
from kilotune.render.labels import Rendering
from kilotune.render.template import ChatTemplate


def check_renderings(
    template: ChatTemplate, examples: Sequence[Example], renderings: Iterable[Rendering]
) -> list[Finding]:
    """Hold every rendering against what generation will do; `examples` in the same order."""
    faults: dict[str, list[str]] = {}
    for example, rendering in zip(examples, renderings, strict=True):
        for code in _faults(template, example, rendering):
            faults.setdefault(code, []).append(example.id)
    return [
        Finding(code, "error", tuple(rows), f"{MESSAGES[code][0]}: {some(rows)}", MESSAGES[code][1])
        for code, rows in faults.items()
    ]


def truncated(ids: Sequence[str], max_length: int) -> list[Finding]:
    """The finding that texts were cut to fit."""
    if not ids:
        return []
    message = f"texts cut to fit {max_length} tokens ({len(ids)}): {some(list(ids))}"
    return [Finding("truncated", "warning", tuple(ids), message, "Raise data.max_length")]


def _faults(template: ChatTemplate, example: Example, rendering: Rendering) -> list[str]:
    prompt = rendering.token_ids[: rendering.prompt_length]
    trained = [
        token
        for token, label in zip(rendering.token_ids, rendering.label_mask, strict=True)
        if label
    ]
    answers = "".join(m.text for m in example.messages if m.role == "assistant")
    bos = template.tokenizer.bos_token_id
    found = []
    if tuple(template.prompt_ids(example.prompt)) != prompt:
        found.append("prompt-mismatch")
    if not trained or trained[-1] != template.stop_id:
        found.append("stop-untrained")
    decoded = template.tokenizer.decode(trained, skip_special_tokens=True)
    if "".join(decoded.split()) != "".join(answers.split()):
        found.append("answer-altered")
    if bos is not None and bos != template.stop_id and prompt[:2] == (bos, bos):
        found.append("double-bos")
    return found


MESSAGES = {
    "prompt-mismatch": (
        "the prompt is rendered in one way for training and another for generation",
        "Use another chat template for this model",
    ),
    "stop-untrained": (
        "the token that ends an answer is not trained",
        "Use a chat template that closes each answer",
    ),
    "answer-altered": (
        "the trained tokens do not read back as the answer",
        "Remove template markers from the label",
    ),
    "double-bos": (
        "the rendering begins with two beginning-of-sequence tokens",
        "Set the tokenizer's add_bos_token to false; the template adds one",
    ),
}
