"""Greedy answers by a loop of our own, equal to transformers' token for token up to rounding.

Prompts are read in batches whose activations stay in a processor's cache, and generated from in
far larger ones; a row that has ended leaves, so that no step computes what nobody reads.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kilotune.generation.padding import left_padded
from kilotune.generation.prefix import Prefix
from kilotune.generation.slots import Slots
from kilotune.models.pretrained import Model, takes_argument
from kilotune.models.vision import forget_positions

# Tokens that one forward reads, padding included, the shared prefix left out: activations of more
# leave the cache (512 tokens run at 649 GFLOP/s on two cores, 2,048 at 522).
READ_AT_ONCE = 512
# Rows that generate together, and the bytes that their keys and values may take.
ROWS, ROOM = 128, 2**29
# How far, relative, an answer's log-likelihood may be from the plain forward's.
TOLERANCE, ROUGH_TOLERANCE = 1e-4, 0.2


@dataclass(frozen=True, slots=True)
class Answered:
    """Token ids of each row, and how likely the first and the last are: without padding, and with
    most of it.
    """

    token_ids: list[list[int]]
    likelihoods: dict[int, float]


@dataclass(frozen=True, slots=True)
class GreedyDecoder:
    """The likeliest token each time, until `ended` says so of a row's tokens, or `most` of them.

    `prefix` is what all prompts begin with, as `model` has read it.
    """

    model: Model
    prefix: Prefix
    pad_id: int
    most: int
    ended: Callable[[Sequence[int]], bool]

    def rows(self, longest: int) -> int:
        """How many prompts of `longest` tokens at most are answered together."""
        config = self.model.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        )
        token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
        return max(1, min(ROWS, ROOM // (token * (longest + self.most))))

    def answer(self, prompts: Sequence[Sequence[int]]) -> Answered:
        """What follows on each of `prompts` (token ids), the longest of which comes first."""
        forget_positions(self.model)
        slots = Slots(len(prompts), len(prompts[0]), self.most, self.prefix)
        logits, mask = self._read(slots, prompts)
        said: list[list[int]] = [[] for _ in prompts]
        rows, likelihoods = list(range(len(prompts))), {0: 0.0, len(prompts) - 1: 0.0}
        for generated in range(self.most):
            # The first of the likeliest, as `argmax` gives it in several times as long.
            tokens = logits.max(dim=-1).indices
            for row, token in zip(rows, tokens.tolist(), strict=True):
                said[row].append(token)
            for row in likelihoods.keys() & rows:
                place = rows.index(row)
                likelihoods[row] += float(_log_likelihoods(logits[place], tokens[place]))
            order = _closed_up([not self.ended(said[row]) for row in rows])
            if not order or generated + 1 == self.most:
                break
            slots.keep(order, generated)
            rows = [rows[place] for place in order]
            mask = torch.cat([mask[order], mask.new_ones(len(order), 1)], dim=1)
            cache = slots.going_on(len(order), generated)
            logits = self._forward(tokens[order][:, None], mask, cache)
        return Answered(said, likelihoods)

    def error(self, prompts: Sequence[Sequence[int]], answered: Answered) -> str:
        """How far plain forwards find its answers less or more likely; nothing if allowed."""
        allowed = TOLERANCE if self.model.dtype == torch.float32 else ROUGH_TOLERANCE
        for row, likelihood in answered.likelihoods.items():
            plain = self._plain_likelihood(prompts[row], answered.token_ids[row])
            error = abs(plain - likelihood) / max(1.0, abs(plain))
            if not error <= allowed:  # nor is what is not finite
                return f"log-likelihoods are off by {error:.1e}"
        return ""

    def _plain_likelihood(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=self.model.device)
        some = {"logits_to_keep": len(answer)} if self._chooses else {}
        logits = self.model(input_ids=ids, use_cache=False, **some).logits[0, -len(answer) :]
        return float(_log_likelihoods(logits, torch.tensor(answer, device=ids.device)).sum())

    def _read(
        self, slots: Slots, prompts: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What follows on each prompt, (rows, vocabulary), and which columns it stands in."""
        found, masks = [], []
        for first, stop in _stretches([len(prompt) - len(self.prefix) for prompt in prompts]):
            length = len(prompts[first])
            inputs = left_padded(prompts[first:stop], self.pad_id, self.prefix.token_ids)
            ids, mask = (part.to(self.model.device) for part in inputs.values())
            cache = slots.reading(first, stop, length)
            found.append(self._forward(ids[:, len(self.prefix) :], mask, cache))
            masks.append(torch.nn.functional.pad(mask, (len(prompts[0]) - length, 0)))
        return torch.cat(found), torch.cat(masks)

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, cache: object) -> torch.Tensor:
        """What follows on the last of `ids`, the positions counted by `mask`."""
        one = {"logits_to_keep": 1} if self._chooses else {}
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            cache=cache,
            use_cache=True,
            **one,
        )
        last: torch.Tensor = output.logits[:, -1]
        return last

    @property
    def _chooses(self) -> bool:
        """Whether the model can leave out logits that nobody asks for."""
        return takes_argument(self.model, "logits_to_keep")


def _log_likelihoods(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of each of `tokens` by its `logits`, (..., vocabulary)."""
    return logits.float().log_softmax(dim=-1).gather(-1, tokens[..., None])[..., 0]


def _stretches(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Rows to read together, first and behind the last, of `lengths` that fall."""
    first = 0
    while first < len(lengths):
        stop = min(len(lengths), first + max(1, READ_AT_ONCE // lengths[first]))
        yield first, stop
        first = stop


def _closed_up(staying: Sequence[bool]) -> list[int]:
    """The places that stay, those from the end in the gaps, so that few have to move."""
    places = [place for place, stays in enumerate(staying) if stays]
    late = iter([place for place in places if place >= len(places)])
    return [place if staying[place] else next(late) for place in range(len(places))]
