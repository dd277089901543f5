"""What is wrong with renderings: faults of the chat template that training would hide."""

import unicodedata
from collections.abc import Iterator, Sequence

from kilotune.data.example import Example
from kilotune.data.finding import Finding, errors_first, finding
from kilotune.rendering.label_mask import Rendering
from kilotune.rendering.refusals import RenderError
from kilotune.rendering.template import ChatTemplate

__all__ = ["all_findings", "check_rendering", "check_renderings", "truncated"]


def check_renderings(
    template: ChatTemplate, examples: Sequence[Example], renderings: Sequence[Rendering]
) -> list[Finding]:
    """Hold every rendering against what generation will do; `examples` in the same order.

    Errors first; what was found out about the template itself is among them.
    """
    faults = [
        check_rendering(template, example, rendering)
        for example, rendering in zip(examples, renderings, strict=True)
    ]
    return errors_first(all_findings(template, renderings, faults))


def check_rendering(template: ChatTemplate, example: Example, rendering: Rendering) -> list[str]:
    """The codes of what is to be said of one rendering, each once."""
    return list(dict.fromkeys((*rendering.remarks, *_faults(template, example, rendering))))


def all_findings(
    template: ChatTemplate, renderings: Sequence[Rendering], faults: Sequence[Sequence[str]]
) -> list[Finding]:
    """What was found out about the template, and the codes in `faults`, each with its rows.

    Some things are not worth saying where they make no difference: that the template has a system
    message of its own, when all are trained behind it; how padding is masked, when there is none.
    """
    rows: dict[str, list[str]] = {}
    for rendering, codes in zip(renderings, faults, strict=True):
        for code in codes:
            rows.setdefault(code, []).append(rendering.example_id)
    if len(rows.get("default-system", ())) == len(renderings):
        rows.pop("default-system", None)
    found = [finding(code, tuple(ids), _detail(template, code)) for code, ids in rows.items()]
    lengths = {len(rendering.token_ids) for rendering in renderings}
    if template.stop_id == template.tokenizer.pad_token_id and len(lengths) > 1:
        found.append(finding("pad-is-stop"))
    return [*template.findings, *found]


def truncated(ids: Sequence[str], max_length: int) -> list[Finding]:
    """The finding that prompts were cut to fit."""
    return [finding("truncated", tuple(ids), f"{max_length} tokens")] if ids else []


def _detail(template: ChatTemplate, code: str) -> str:
    return f"“{template.default_system}”" if code == "default-system" else ""


def _faults(template: ChatTemplate, example: Example, rendering: Rendering) -> Iterator[str]:
    yield from _bos_faults(template, rendering.token_ids)
    spans = rendering.spans()
    if not spans:
        yield "nothing-trained"
        return
    answers = [i for i, message in enumerate(example.messages) if message.role == "assistant"]
    if not _prompt_agrees(template, example, rendering, answers[-1]):
        yield "prompt-mismatch"
    trained = [answer for answer in answers if example.messages[answer].trained]
    for (start, end), answer in zip(reversed(spans), reversed(trained), strict=False):
        ids = rendering.token_ids[start:end]
        yield from _answer_faults(template, ids, example.messages[answer].text)


def _prompt_agrees(
    template: ChatTemplate, example: Example, rendering: Rendering, answer: int
) -> bool:
    try:
        ids = template.prompt_ids(example.messages[:answer])
    except RenderError:
        return False
    return tuple(ids) == rendering.token_ids[: rendering.prompt_length]


def _answer_faults(template: ChatTemplate, ids: Sequence[int], answer: str) -> Iterator[str]:
    """Faults of one trained stretch: the answer, and behind it the token that ends it."""
    ends = template.ends
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    if stop is None:
        yield "stop-untrained"
    elif ids[stop] != template.stop_id and ids[stop] not in template.model_stops:
        yield "turn-end-differs"
    text: str = template.tokenizer.decode(ids[:stop], clean_up_tokenization_spaces=False)
    if text.strip() != answer.strip():
        composed = unicodedata.normalize("NFC", answer).strip()
        yield "answer-composed" if text.strip() == composed else "answer-altered"
    elif answer not in text:
        yield "answer-trimmed"


def _bos_faults(template: ChatTemplate, ids: Sequence[int]) -> Iterator[str]:
    bos = template.tokenizer.bos_token_id
    if bos is None:
        return
    begins = ids[:1] == (bos,)
    if ids[:2] == (bos, bos):
        yield "double-bos"
    if template.wants_bos and not begins:
        yield "missing-bos"
    # Where it opens every turn too, as <|im_start|> does, it is a marker like others.
    if begins and not template.wants_bos and ids.count(bos) == 1:
        yield "unwanted-bos"
    # Llama 2 begins anew after each answer's end; nothing else has a reason to.
    ends = {template.stop_id, template.tokenizer.eos_token_id}
    if template.wants_bos and any(
        token == bos and ids[i] != bos and ids[i] not in ends for i, token in enumerate(ids[1:])
    ):
        yield "bos-inside"
