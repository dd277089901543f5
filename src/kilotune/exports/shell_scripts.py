"""The commands that serve or convert what was exported, as small shell scripts.

Written for vLLM 0.11 and later (`vllm serve`) and for llama.cpp since it is `ggml-org/llama.cpp`;
the programs themselves are not run by kilotune.
"""

from kilotune.exports.finished import NEUTRAL, Finished
from kilotune.exports.jinja_templates import render_template
from kilotune.models.public import on_hub, public_name

# What vLLM's --max-lora-rank may be (MaxLoRARanks in its config/lora.py).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
LARGEST_RANK = RANKS[-1]


def serve_script(finished: Finished, *, adapter: bool) -> str:
    """vLLM with the merged model, or with the base model and its adapter, which requests name.

    It is told what it would take from elsewhere: template, end tokens, decoding, precision.
    """
    decoding, base = finished.decoding, finished.recipe.model.name
    used = {n: value for n, value in decoding.sampling.items() if value != NEUTRAL.get(n)}
    return render_template(
        "serve.sh.j2",
        finished=finished,
        rank=next(r for r in RANKS if r >= finished.adapter["r"]) if adapter else None,
        base=public_name(base),
        on_hub=on_hub(base),
        override={**used, "max_new_tokens": decoding.max_new_tokens},
    )


def convert_script(finished: Finished, *, sees: bool) -> str:
    """llama.cpp's own converter, once as it is and once in 4 bits, and how to ask the model."""
    values = {"finished": finished, "outtype": _outtype(finished)}
    return render_template("convert.sh.j2", sees=sees, **values)


def create_script(finished: Finished) -> str:
    """A GGUF file by llama.cpp's converter, and Ollama's model of it by the Modelfile."""
    return render_template("create.sh.j2", finished=finished, outtype=_outtype(finished))


def _outtype(finished: Finished) -> str:
    return {"bfloat16": "bf16", "float16": "f16"}.get(finished.dtype, "f32")
