"""A chat model that writes freely, and language models that know words in their context."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForMaskedLM

from kilotune.augmentation.model_protocols import Conversation, Gap
from kilotune.generation.decoding import generate, generation_config
from kilotune.generation.padding import batches, right_padded
from kilotune.generation.prompts import Prompts
from kilotune.models.positions import longest_text, position_limit
from kilotune.models.pretrained import Model, load_beside, stop_ids
from kilotune.progress import Progress
from kilotune.recipe.schema import DecodingSettings
from kilotune.rendering.template import ChatTemplate

# A rewritten text is given the room of the longest there is, and half as much again.
ROOM, LEAST_ROOM, MOST_ROOM = 1.5, 32, 512
# A model's guesses for a place, of which whole words that differ are scored in the sentence.
GUESSES, SCORED = 40, 12
TOKEN_BUDGET = 2048
# Tokens by which another word may be longer than the one in its place.
OTHER_WORD = 16


@dataclass(frozen=True, slots=True)
class ChatWriter:
    """A loaded chat model as `model_protocols.Writer`; what its prompts share is read once."""

    name: str
    model: Model
    template: ChatTemplate
    progress: Progress

    def write(
        self, conversations: Sequence[Conversation], *, temperature: float, seed: int
    ) -> list[str]:
        """One answer for each conversation, "" where it did not come to an end or is too long."""
        if not conversations:
            return []
        tokenizer = self.template.tokenizer
        texts = [turns[-1].text for turns in conversations]
        longest = max(len(self.template.encode(text)) for text in texts)
        room = min(MOST_ROOM, max(LEAST_ROOM, int(ROOM * longest)))
        config = generation_config(
            DecodingSettings(temperature=temperature, top_p=0.95, max_new_tokens=room),
            answer_tokens=room,
            stop_ids=stop_ids(self.model, self.template.stop_id),
            pad_id=tokenizer.pad_token_id,
        )
        every = [tuple(self.template.prompt_ids(turns)) for turns in conversations]
        most = position_limit(self.model.config)
        fitting = [n for n, ids in enumerate(every) if most is None or len(ids) + room <= most]
        written = [""] * len(every)
        if not fitting:
            return written
        said = generate(
            self.model,
            tokenizer,
            Prompts([every[number] for number in fitting]),
            config,
            seed=seed,
            progress=self.progress,
            title="writing",
        )
        for number, answer in zip(fitting, said, strict=True):
            written[number] = answer.text if answer.stopped else ""
        return written


@dataclass(frozen=True, slots=True)
class CausalGuesser:
    """A causal language model as `model_protocols.Guesser`.

    What it would say next, given the text on the left, is proposed; each proposal is then judged on
    both sides, by the likelihood of the whole sentence with it.
    """

    model: Model
    tokenizer: Any

    def guesses(self, gaps: Sequence[Gap]) -> list[list[tuple[str, float]]]:
        """Other words for each gap, and the gain of the whole sentence in nats."""
        words = self._proposals(gaps)
        sentences = [
            gap.left + word + gap.right
            for gap, others in zip(gaps, words, strict=True)
            for word in ((gap.word, *others) if others else ())
        ]
        scores = iter(self._likelihoods(sentences))
        found = []
        for others in words:
            own = next(scores) if others else 0.0
            gains = [(word, next(scores) - own) for word in others]
            found.append(sorted(gains, key=lambda pair: -pair[1]))
        return found

    def _proposals(self, gaps: Sequence[Gap]) -> list[list[str]]:
        """Whole words that may come next after each gap's left side.

        None at a text's start, and none in a text that is too long for the model.
        """
        lefts = [self.tokenizer(gap.left.rstrip(" "))["input_ids"] for gap in gaps]
        proposals: list[list[str]] = [[] for _ in gaps]
        longest = longest_text(self.model, self.tokenizer) - OTHER_WORD
        whole = [self.tokenizer(gap.left + gap.word + gap.right)["input_ids"] for gap in gaps]
        asked = [place for place, ids in enumerate(lefts) if ids and len(whole[place]) <= longest]
        for places in batches(lefts, TOKEN_BUDGET, asked):
            logits, _ = self._logits([lefts[place] for place in places])
            for row, place in enumerate(places):
                last = logits[row, len(lefts[place]) - 1]
                gap = gaps[place]
                words = _words(self.tokenizer, last, gap.left.endswith(" "), gap.word)
                proposals[place] = words
        return proposals

    def _likelihoods(self, sentences: Sequence[str]) -> list[float]:
        """The log-likelihood of each sentence, without its first token."""
        rows = [self.tokenizer(text)["input_ids"] for text in sentences]
        scores = [0.0] * len(rows)
        for batch in batches(rows, TOKEN_BUDGET):
            logits, ids = self._logits([rows[index] for index in batch])
            known = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
            for row, index in enumerate(batch):
                scores[index] = float(known[row, : len(rows[index]) - 1].sum())
        return scores

    def _logits(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = _inputs(rows, self.tokenizer, self.model)
        with torch.inference_mode():
            output = self.model(**inputs, use_cache=False)
        return output.logits.float(), inputs["input_ids"]


@dataclass(frozen=True, slots=True)
class MaskedGuesser:
    """A masked language model as `model_protocols.Guesser`: it sees both sides at once."""

    model: Any
    tokenizer: Any

    def guesses(self, gaps: Sequence[Gap]) -> list[list[tuple[str, float]]]:
        """Other words for each gap, and how much likelier each is than its own word."""
        rows = [
            self.tokenizer(gap.left + self.tokenizer.mask_token + gap.right)["input_ids"]
            for gap in gaps
        ]
        found: list[list[tuple[str, float]]] = [[] for _ in gaps]
        longest = longest_text(self.model, self.tokenizer)
        fitting = [place for place, ids in enumerate(rows) if len(ids) <= longest]
        for batch in batches(rows, TOKEN_BUDGET, fitting):
            inputs = _inputs([rows[index] for index in batch], self.tokenizer, self.model)
            with torch.inference_mode():
                logits = self.model(**inputs).logits.float()
            for row, index in enumerate(batch):
                gap, place = gaps[index], rows[index].index(self.tokenizer.mask_token_id)
                scores = logits[row, place].log_softmax(-1)
                own = self.tokenizer(gap.word, add_special_tokens=False)["input_ids"][:1]
                before = float(scores[own[0]]) if own else 0.0
                words = _words(self.tokenizer, scores, None, gap.word)
                ranks = self.tokenizer.convert_tokens_to_ids
                found[index] = [
                    (word, float(scores[token]) - before)
                    for word in words
                    if (token := ranks(word)) is not None
                ]
        return found


def load_masked(source: str) -> MaskedGuesser:
    """The masked language model at `source`. Raises KilotuneError where there is none."""
    tokenizer, model = load_beside(AutoModelForMaskedLM, source, "masked language model")
    return MaskedGuesser(model, tokenizer)


def _words(tokenizer: Any, scores: torch.Tensor, spaced: bool | None, own: str) -> list[str]:
    """The likeliest tokens that are whole words and not `own`.

    After a space a word begins with one; `None` takes tokens as they are.
    """
    words: dict[str, None] = {}
    for token in scores.topk(min(GUESSES, len(scores))).indices.tolist():
        said = tokenizer.decode([token])
        if spaced is not None and said.startswith(" ") != spaced:
            continue
        word = said.strip()
        if word.isalpha() and word.lower() != own.lower():
            words[word] = None
    return list(words)[:SCORED]


def _inputs(rows: Sequence[Sequence[int]], tokenizer: Any, model: Any) -> dict[str, torch.Tensor]:
    padded = right_padded(rows, tokenizer.pad_token_id)
    return {name: tensor.to(model.device) for name, tensor in padded.items()}
