"""`kilotune export`: the weights of a run for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from kilotune.cli import options
from kilotune.cli.terminal import command, log, print_result, put
from kilotune.cli.trust import TrustCode, read_run


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    folder: Annotated[Path, typer.Option("-o", "--out", help="The folder to write; must be new.")],
    to: Annotated[
        str,
        typer.Option(
            help="adapter; merged, a whole checkpoint; gguf, files of 16 and of 8 bits (after "
            "`kilotune fetch llama.cpp`); vllm, gguf-instructions (llama.cpp) or ollama, with the "
            "commands that serve or convert it; qwen-adapter, under the module names that a "
            "first-generation Qwen's own code has."
        ),
    ] = "adapter",
    trust_code: TrustCode = False,
    as_json: options.Json = False,
) -> None:
    """Write a run's tuned weights for other programs, with tokenizer, template and decoding."""
    with command(as_json):
        from kilotune.recipe.functions import MODEL

        read_run(run, trust_code, MODEL)  # a wrong folder is said before the libraries load

        from kilotune.exports import export as write
        from kilotune.exports import remarks
        from kilotune.messages.sentences import say

        path = write(run, to, folder, trust_code=trust_code)
        said = [say(remark) for remark in remarks(run, to, trust_code=trust_code)]
        for line in said:
            put(log, f"{line}.", lead="  ")
        print_result({"out": str(path), "to": to, "remarks": said}, str(path), as_json=as_json)
