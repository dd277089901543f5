"""Ollama's Modelfile: the run's template, system message, end tokens and decoding.

The format is that of https://docs.ollama.com/modelfile.
"""

from typing import Any

from kilotune.errors import KilotuneError
from kilotune.exports.finished import Finished
from kilotune.rendering.go_template import go_template

# Ollama's names where they are not transformers'.
NAMES = {"repetition_penalty": "repeat_penalty"}
# Ollama makes a context of so many tokens by itself.
CONTEXT = 4096
QUOTES = '"""'


def modelfile(finished: Finished, config: Any) -> str:
    """The text of the Modelfile for `model.gguf` beside it; `config` is the model's.

    Raises KilotuneError where the chat template has no equal in Go, or where a text has letters
    that a Modelfile cannot hold.
    """
    template, decoding = go_template(finished.template), finished.decoding
    question, title = finished.wording.question, " ".join(finished.title.split())
    lines = [
        f"# The tuned model of {title}, as it was judged: same prompts, same decoding.",
        *_remarks(template.strips, question),
        "FROM ./model.gguf",
        f"TEMPLATE {_quoted(template.text, 'TEMPLATE')}",
    ]
    if finished.wording.system:
        lines.append(f"SYSTEM {_quoted(finished.wording.system, 'SYSTEM')}")
    given = {NAMES.get(name, name): value for name, value in decoding.sampling.items()}
    longest = finished.recipe.data.max_length + decoding.max_new_tokens
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or longest
    given |= {"num_predict": decoding.max_new_tokens}
    given |= {"num_ctx": min(max(CONTEXT, longest), limit)}
    if given["repeat_penalty"] != 1:
        given |= {"repeat_last_n": -1}  # all of the text, as transformers does
    lines += [f"PARAMETER {name} {value}" for name, value in given.items()]
    stops = (*decoding.stops, *decoding.stop_strings)
    lines += [f"PARAMETER stop {_quoted(stop, 'stop')}" for stop in stops]
    return "\n".join(lines) + "\n"


def _remarks(strips: bool, question: str) -> list[str]:
    remarks = []
    if strips:
        remarks.append(
            "# The model's own template takes white space off the ends of messages; this one "
            "cannot:"
        )
        remarks.append("# send them without.")
    if question != "{text}":
        remarks.append("# What the user says was put like this, with the text for {text}:")
        remarks += [f"#   {line}" for line in question.split("\n")]
    return remarks


def _quoted(text: str, where: str) -> str:
    """`text` between three quotes, where lines may break; nothing can be escaped there."""
    lost = sorted({c for c in text if not (c.isprintable() or c in "\n\t")})
    if lost or QUOTES in text:
        what = f"three quotes ({QUOTES})" if QUOTES in text else f"letters like {lost[0]!r}"
        raise KilotuneError(
            f"a Modelfile cannot hold {what}",
            where=where,
            fix="Export for another program: --to vllm or --to gguf-instructions",
        )
    return f"{QUOTES}{text}{QUOTES}"
