"""How much two texts have in common: ROUGE-L, chrF, BLEU. Higher is better, all in [0, 1]."""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kilotune.data.example import comparable
from kilotune.data.scripts import spaceless_share

if TYPE_CHECKING:
    pass

# Above this share of letters beyond the alphabets that put spaces between words, BLEU counts
# characters (sacrebleu's `zh`), as token F1 and ROUGE-L always do for those letters.
SPACELESS_SHARE = 0.3


def words(text: str) -> list[str]:
    """The words of a text, without case, width and punctuation.

    Every ideograph, kana or Thai letter is a word.
    """
    spaceless = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
    return re.findall(rf"[{spaceless}]|(?:(?![{spaceless}])\w)+", comparable(text))


def rouge_l(prediction: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, section 3.1).

    Two texts without words are alike.
    """
    found, wanted = words(prediction), words(reference)
    if not found or not wanted:
        return float(not found and not wanted)
    return 2 * _common_subsequence(found, wanted) / (len(found) + len(wanted))


def chrf(prediction: str, reference: str) -> float:
    """chrF2 of one text: F2 of character n-grams up to six (Popović 2015), by sacrebleu."""
    from sacrebleu import sentence_chrf

    return float(sentence_chrf(prediction, [reference]).score) / 100


def bleu(
    predictions: Sequence[str], references: Sequence[str]
) -> Callable[[NDArray[np.int64]], float]:
    """BLEU of any rows of the corpus (Papineni et al. 2002), by sacrebleu: a metric of rows.

    Counts of n-grams are summed over the rows before they are divided, so that it has no value of
    a single text.
    """
    from sacrebleu.metrics.bleu import BLEU

    spaceless = spaceless_share("".join(references)) > SPACELESS_SHARE
    scorer: BLEU = BLEU(tokenize="zh" if spaceless else "13a", effective_order=True)
    found = [
        scorer.sentence_score(text, [true])
        for text, true in zip(predictions, references, strict=True)
    ]
    counts = np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found])

    def of_rows(rows: NDArray[np.int64]) -> float:
        summed: list[Any] = counts[rows].sum(axis=0).tolist()
        score = BLEU.compute_bleu(
            correct=summed[:4],
            total=summed[4:8],
            sys_len=summed[8],
            ref_len=summed[9],
            smooth_method="exp",  # as corpus_bleu does
        )
        return float(score.score) / 100

    return of_rows


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """The length of the longest common subsequence, a row of its table a time in the bits of one
    number (Hyyrö 2004).
    """
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    row = every
    for word in second:
        matched = row & places.get(word, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(first) - row.bit_count()
