"""Ollama's Modelfile: the run's template, system message, end tokens and decoding.

The format is that of https://docs.ollama.com/modelfile.
"""

from typing import Any

from kilotune.errors import KilotuneError
from kilotune.exports.finished import Finished
from kilotune.exports.jinja_templates import render_template
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
    decoding = finished.decoding
    parameters = {NAMES.get(name, name): value for name, value in decoding.sampling.items()}
    longest = finished.recipe.data.max_length + decoding.max_new_tokens
    limit = getattr(config.get_text_config(), "max_position_embeddings", None) or longest
    parameters |= {"num_predict": decoding.max_new_tokens}
    parameters |= {"num_ctx": min(max(CONTEXT, longest), limit)}
    if parameters["repeat_penalty"] != 1:
        parameters |= {"repeat_last_n": -1}  # all of the text, as transformers does
    return render_template(
        "modelfile.j2",
        title=" ".join(finished.title.split()),
        template=go_template(finished.template),
        wording=finished.wording,
        system=finished.system,
        systems_differ=finished.systems_differ,
        parameters=parameters,
        stops=(*decoding.stops, *decoding.stop_strings),
        quoted=_quoted,
    )


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
