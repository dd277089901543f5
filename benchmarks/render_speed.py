"""How long rendering with all its checks takes: 1,000 examples of each kind, on one core.

    taskset -c 0 python benchmarks/render_speed.py
    taskset -c 0 python benchmarks/render_speed.py truncated long --json

Kinds: `short` (one question, one answer), `turns6` and `turns20` (chats of so many turns, about
3,400 tokens each), `quoting` (as `turns6`, with the spelling of a control token in every message),
`truncated` (`turns6` cut to 1,024 tokens) and `long` (chats of 100 turns cut to a tenth). Texts are
drawn by Zipf's law from words of its own, so that no two are alike. Reads the tokenizer of
`--model` and the template that comes with it; nothing else is loaded.
"""

import argparse
import json
import time
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from kilotune.data.example import Example, Message, Origin
from kilotune.models.source import locate_tokenizer
from kilotune.recipe.schema import ModelSettings
from kilotune.rendering.renderings import Rendered, render_examples
from kilotune.rendering.wording import Wording
from kilotune.session.templates import load_template

GOAL = 10.0  # seconds for 1,000 examples
NO_LIMIT = 1_000_000
# Turns, words of each, max_length, whether messages quote a control token.
KINDS: dict[str, tuple[int, int, int, bool]] = {
    "short": (2, 20, NO_LIMIT, False),
    "turns6": (6, 240, NO_LIMIT, False),
    "turns20": (20, 72, NO_LIMIT, False),
    "quoting": (6, 240, NO_LIMIT, True),
    "truncated": (6, 240, 1024, False),
    "long": (100, 14, 340, False),
}


def chats(kind: str, count: int, rng: Random) -> list[Example]:
    """`count` conversations in which user and assistant take turns."""
    turns, length, _, quoting = KINDS[kind]
    words = ["".join(rng.choices("abdegiklmnorstu", k=rng.randint(2, 8))) for _ in range(20_000)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(len(words))))

    def message(turn: int) -> Message:
        text = " ".join(rng.choices(words, cum_weights=weights, k=length))
        return Message(("user", "assistant")[turn % 2], f"{text} <|im_end|>" if quoting else text)

    return [
        Example(f"data:{row}", tuple(map(message, range(turns))), Origin("chats.jsonl", row))
        for row in range(1, count + 1)
    ]


def measure(kind: str, count: int, model: str) -> dict[str, float | str]:
    """Render and check one kind; the tokenizer and its template are loaded before the clock."""
    settings = ModelSettings(name=model)
    template = load_template(locate_tokenizer(settings))
    examples = chats(kind, count, Random(0))
    start = time.process_time()
    rendered = render_examples(template, Wording("", "{text}"), examples, max_length=KINDS[kind][2])
    seconds = time.process_time() - start
    _complete(rendered, count)
    return {
        "kind": kind,
        "examples": count,
        "tokens": rendered.tokens,
        "trained": rendered.trained,
        "seconds": round(seconds, 2),
        "microseconds_per_token": round(1e6 * seconds / rendered.tokens, 2),
    }


def _complete(rendered: Rendered, count: int) -> None:
    errors = [finding for finding in rendered.findings if finding.severity == "error"]
    if errors or len(rendered.renderings) != count:
        raise SystemExit(f"not everything could be rendered: {errors}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the kinds asked for and print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], default=[])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--json", action="store_true", help="one JSON document as the last line")
    options = parser.parse_args(arguments)
    results = []
    for kind in options.kinds or KINDS:
        result = measure(kind, options.count, options.model)
        results.append(result)
        within = "within" if float(result["seconds"]) < GOAL else "over"
        print(
            f"{kind:10} {result['examples']:,} examples, {result['tokens']:,} tokens: "
            f"{result['seconds']} s of processor time ({within} {GOAL:.0f} s), "
            f"{result['microseconds_per_token']} µs a token",
            flush=True,
        )
    if options.json:
        print(json.dumps({"goal_seconds": GOAL, "results": results}))


if __name__ == "__main__":
    main()
