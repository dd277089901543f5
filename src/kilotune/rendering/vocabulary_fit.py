"""Whether a model's vocabulary has been made for the writing of a file."""

from collections.abc import Sequence

from kilotune.data.example import Example
from kilotune.data.finding import Finding, finding
from kilotune.data.scripts import LETTERS, script
from kilotune.rendering.template import ChatTemplate

# Examples that are looked at, and letters that tell something.
SAMPLE, LEAST_LETTERS = 50, 200
# Tokens a letter. SmolLM2, which is English, takes 2.3 for Chinese, 1.9 for Japanese, 0.9 for
# Russian and 0.2 for English. A vocabulary that has the signs of a writing takes at most one for
# each, and one that has an alphabet's words far less.
DENSE = frozenset({"Han", "Japanese", "Kana", "Hangul"})
MOST_DENSE, MOST = 1.3, 0.8


def unfamiliar_writing(template: ChatTemplate, examples: Sequence[Example]) -> list[Finding]:
    """A note where the texts are spelt out in far more tokens than a model that knows them needs.

    A vocabulary is made of what a model was trained on: what it spells letter by letter, or byte by
    byte, the model has hardly read.
    """
    step = max(1, len(examples) // SAMPLE)
    text = "\n".join(example.text for example in examples[::step][:SAMPLE])
    written = script(text, LEAST_LETTERS)
    if written is None or written == "Latin":
        return []
    tokens = len(template.tokenizer(text, add_special_tokens=False)["input_ids"])
    ratio = tokens / sum(map(len, LETTERS.findall(text)))
    if ratio <= (MOST_DENSE if written in DENSE else MOST):
        return []
    return [finding("unfamiliar-writing", script=written, ratio=ratio)]
