"""Sequence-to-sequence models of transformers as translators: Marian, NLLB, M2M100."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from kilotune.augmentation.back_translation import Pivot
from kilotune.augmentation.model_protocols import Translator
from kilotune.errors import KilotuneError
from kilotune.generation.padding import batches
from kilotune.models.positions import longest_text
from kilotune.models.pretrained import load_beside

TOKEN_BUDGET = 2048
# A translation is at most so many times as long as its source, and some tokens.
LONGER, MORE = 2, 16


def seq2seq(name: str, seed: int) -> Translator:
    """Two models, `THERE,BACK`, or one of many languages, `MODEL@eng_Latn-fra_Latn`.

    Sampled from the likelier tokens (top-p 0.9), since the best translation back is too often what
    was there; seeded. Raises KilotuneError where a model cannot be read.
    """
    model, _, languages = name.partition("@")
    if languages:
        first, _, second = languages.partition("-")
        both = _load(model)
        return Pivot(f"hf:{name}", _translate(both, seed, first, second),
                     _translate(both, seed, second, first))  # fmt: skip
    there, _, back = name.partition(",")
    if not back:
        raise KilotuneError(
            f"'{name}' is neither two models nor one with two languages",
            where="augment.translators",
            fix="Write hf:THERE,BACK, or hf:MODEL@eng_Latn-fra_Latn",
        )
    return Pivot(f"hf:{name}", _translate(_load(there), seed), _translate(_load(back), seed))


def _load(source: str) -> tuple[Any, Any]:
    tokenizer, model = load_beside(AutoModelForSeq2SeqLM, source, "sequence-to-sequence model")
    return model, tokenizer


def _translate(
    loaded: tuple[Any, Any], seed: int, source: str = "", target: str = ""
) -> Callable[[Sequence[str]], list[str]]:
    model, tokenizer = loaded

    def translate(sentences: Sequence[str]) -> list[str]:
        if source:
            tokenizer.src_lang = source
        forced = {"forced_bos_token_id": _language(tokenizer, target)} if target else {}
        rows = tokenizer(list(sentences))["input_ids"]
        results = [""] * len(rows)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(seed)
            # What is too long for the model stays without a translation.
            longest = longest_text(model, tokenizer)
            fitting = [place for place, ids in enumerate(rows) if len(ids) <= longest]
            for batch in batches(rows, TOKEN_BUDGET, fitting):
                inputs = tokenizer.pad(
                    {"input_ids": [rows[index] for index in batch]}, return_tensors="pt"
                ).to(model.device)
                output = model.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    do_sample=True,
                    top_p=0.9,
                    num_beams=1,
                    max_new_tokens=LONGER * inputs["input_ids"].shape[1] + MORE,
                    **forced,
                )
                for index, ids in zip(batch, output, strict=True):
                    results[index] = tokenizer.decode(ids, skip_special_tokens=True)
        return results

    return translate


def _language(tokenizer: Any, language: str) -> int:
    """The token that a multilingual model begins its answer with."""
    if hasattr(tokenizer, "get_lang_id"):
        return int(tokenizer.get_lang_id(language))
    return int(tokenizer.convert_tokens_to_ids(language))
