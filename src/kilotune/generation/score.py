"""Likelihoods of closed labels: every label of several examples in one forward.

A row holds one prompt and behind it all labels as a tree: each token sees the prompt and the
tokens before it on its own branch, and its position counts from the prompt's end. Labels that
begin alike share those tokens; a label's last token is not computed, since nothing follows it.
The same forward says what greedy decoding would answer, as long as that is one of the labels.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch

from kilotune.generation.kept import KeptStates, row_name
from kilotune.generation.padding import batches, right_padded
from kilotune.generation.prefix import Prefix, obstacle, shared_prefix
from kilotune.generation.prompts import Prompts
from kilotune.models.answering import answering
from kilotune.models.pretrained import Model, takes_argument
from kilotune.progress import Progress
from kilotune.rendering.template import ChatTemplate

# Tokens that one forward computes, padding and labels included, the shared prefix left out.
TOKEN_BUDGET = 2048

# How far, relative, the tree may be from single rows: rounding in float32, and in bfloat16.
TOLERANCE, ROUGH_TOLERANCE = 1e-4, 0.2
# By how much, in nats, a token must be likelier than the next to be what is generated for sure.
EDGE, ROUGH_EDGE = 1e-3, 0.5


@dataclass(frozen=True, slots=True)
class LabelScores:
    """What a model thinks of each label after one prompt, in the order of the labels.

    `log_likelihoods` are sums over a label's tokens, the stop token included where it is one of
    them; `normalised` are those sums per token; `probabilities` are their softmax over the labels.
    `greedy` are the tokens that greedy decoding answers, to the one that ends it; None where that
    is not known without generating: it is no label, or two tokens are about as likely.
    """

    log_likelihoods: tuple[float, ...]
    normalised: tuple[float, ...]
    probabilities: tuple[float, ...]
    greedy: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class LabelTree:
    """Labels (token ids) as a tree whose root is the prompt's last token.

    `tokens` are the nodes that something follows, `parents` theirs (-1 for the root), `depths`
    count from 1. `columns` and `targets` name every prediction of every label: the column it is
    made in (0 for the root, node + 1 else) and the token; `owners` are the labels they belong to.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    depths: tuple[int, ...]
    columns: tuple[int, ...]
    targets: tuple[int, ...]
    owners: tuple[int, ...]

    @classmethod
    def of(cls, labels: Sequence[Sequence[int]]) -> "LabelTree":
        """The tree of `labels`, none of which may be empty."""
        nodes: dict[tuple[int, ...], int] = {}
        predictions = []
        for owner, label in enumerate(map(tuple, labels)):
            for depth, target in enumerate(label):
                before = label[:depth]
                if depth:
                    nodes.setdefault(before, len(nodes))
                predictions.append((nodes[before] + 1 if depth else 0, target, owner))
        columns, targets, owners = zip(*predictions, strict=True)
        return cls(
            tokens=tuple(path[-1] for path in nodes),
            parents=tuple(nodes.get(path[:-1], -1) for path in nodes),
            depths=tuple(len(path) for path in nodes),
            columns=columns,
            targets=targets,
            owners=owners,
        )

    def greedy(self, likeliest: Sequence[int], stops: Collection[int]) -> tuple[int, ...] | None:
        """The tokens to one of `stops`, `likeliest` being what follows on each column.

        None where they leave the tree before.
        """
        pairs = zip(self.parents, self.tokens, strict=True)
        nodes = {pair: node for node, pair in enumerate(pairs)}
        said: list[int] = []
        node: int | None = -1
        while node is not None:
            said.append(likeliest[node + 1])
            if said[-1] in stops:
                return tuple(said)
            node = nodes.get((node, said[-1]))
        return None

    def sees(self) -> torch.Tensor:
        """Shape (nodes, nodes): which nodes each node looks back on, itself included."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):  # a parent comes before its children
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def label_ids(template: ChatTemplate, labels: Sequence[str]) -> list[list[int]]:
    """Each label as a whole answer: its tokens and the one that ends it."""
    return [[*template.encode(label), template.stop_id] for label in labels]


@dataclass(frozen=True)
class LabelSet:
    """Labels (token ids), none of them empty, and the token that pads rows.

    `stops` are the tokens that end an answer, without which no greedy one is known.
    """

    ids: Sequence[Sequence[int]]
    pad_id: int
    stops: Collection[int] = ()

    @cached_property
    def tree(self) -> LabelTree:
        """All of them as one tree."""
        return LabelTree.of(self.ids)


def score_labels(
    model: Model,
    prompts: Prompts,
    labels: LabelSet,
    *,
    progress: Progress,
    title: str = "scoring",
    kept: KeptStates | None = None,
) -> list[LabelScores]:
    """Score every label after every prompt, in the order of `prompts`.

    `kept` are states of models with the same frozen layers, to start from and to add to. All that
    is tried on the shortest prompt first. Where the model's attention does not allow the tree, each
    label is scored in a row of its own, and `progress` is told why.
    """
    if not prompts:
        return []
    lengths = torch.tensor([len(label) for label in labels.ids])
    with torch.inference_mode(), answering(model):
        choice = choose_scorer(model, prompts, labels, kept)
        if choice.reason:
            progress.say(choice.reason)
        rows = [[*prompt[choice.skipped :], *labels.tree.tokens] for prompt in prompts.token_ids]
        sums = torch.empty(len(prompts), len(lengths))
        greedy: dict[int, tuple[int, ...] | None] = {}
        with progress.bar(title, len(prompts)) as bar:
            for batch in batches(rows, TOKEN_BUDGET):
                found = choice.scorer.score(prompts.of(batch, choice.skipped))
                sums[batch] = found.sums
                greedy.update(zip(batch, found.greedy, strict=True))
                bar.advance(len(batch))
    columns = (sums, sums / lengths, sums.softmax(dim=1))
    each = zip(*(column.tolist() for column in columns), strict=True)
    return [
        LabelScores(tuple(row), tuple(mean), tuple(share), greedy[number])
        for number, (row, mean, share) in enumerate(each)
    ]


@dataclass(frozen=True, slots=True)
class Scored:
    """Of a batch: sums of log-likelihoods, (rows, labels), and greedy answers, None if unknown."""

    sums: torch.Tensor
    greedy: Sequence[tuple[int, ...] | None]


class LabelScorer(Protocol):
    """A way to score all labels after each prompt of a batch."""

    def score(self, batch: Prompts) -> Scored:
        """The scores of `batch`, whose prompts lack the tokens that this way leaves out."""


@dataclass(frozen=True, slots=True)
class RowScorer:
    """The plain way: each label of each prompt in a padded row of its own."""

    model: Model
    labels: LabelSet

    def score(self, batch: Prompts) -> Scored:
        """The scores of whole prompts, without greedy answers."""
        ids = self.labels.ids
        each = batch.of([row for row in range(len(batch)) for _ in ids])
        sums = _pair_scores(self.model, each, [*ids] * len(batch), self.labels.pad_id)
        return Scored(sums.view(len(batch), len(ids)), [None] * len(batch))


@dataclass(frozen=True, slots=True)
class TreeScorer:
    """All labels in one row, as a tree behind each prompt, which goes on after `prefix`.

    Rows are padded between the prefix and what is their own, so that all trees stand in the same
    columns.
    """

    model: Model
    labels: LabelSet
    prefix: Prefix

    def score(self, batch: Prompts) -> Scored:
        """The scores, all layers computed."""
        return self.read(self.logits(self.rows(batch)))

    def rows(self, batch: Prompts) -> list[list[int]]:
        """The tokens of each prompt, then those of the tree."""
        return [[*rest, *self.labels.tree.tokens] for rest in batch.token_ids]

    def logits(self, rows: list[list[int]], states: torch.Tensor | None = None) -> torch.Tensor:
        """What follows on each prompt and on each node, shape (rows, columns, vocabulary).

        The model starts from `states`, where there are some, and not from the tokens.
        """
        tree, shared = self.labels.tree, len(self.prefix)
        size = max(map(len, rows))
        longest = size - len(tree.tokens)
        pads = torch.tensor([size - len(row) for row in rows])
        depths = torch.tensor(tree.depths, dtype=torch.long)
        places = torch.cat([torch.arange(longest), longest - 1 + depths])
        padded = torch.tensor([[self.labels.pad_id] * (size - len(row)) + row for row in rows])
        given = {"input_ids": padded} if states is None else {"inputs_embeds": states}
        cache = {"cache": self.prefix.cache(len(rows))} if self.prefix else {}
        return logits_at(
            self.model,
            torch.arange(longest - 1, size),
            **given,
            position_ids=(shared + places - pads[:, None]).clamp(min=0),
            attention_mask=_additive(_visible(pads, longest, tree, shared), self.model.dtype),
            use_cache=bool(self.prefix),
            **cache,
        )

    def read(self, logits: torch.Tensor) -> Scored:
        """The scores by `logits`, which are overwritten."""
        tree, stops = self.labels.tree, self.labels.stops
        columns = torch.tensor(tree.columns, device=logits.device)
        targets = torch.tensor(tree.targets, device=logits.device)
        found = (logits[:, columns, targets] - logits.logsumexp(dim=-1)[:, columns]).cpu()
        sums = torch.zeros(len(found), len(self.labels.ids))
        sums.index_add_(1, torch.tensor(tree.owners), found)
        if not stops:
            return Scored(sums, [None] * len(sums))
        edge = EDGE if self.model.dtype == torch.float32 else ROUGH_EDGE
        return Scored(sums, [tree.greedy(row, stops) for row in _likeliest(logits, edge)])


@dataclass(frozen=True, slots=True)
class KeptTreeScorer:
    """The same tree, begun above the frozen layers where states of all rows are `kept`."""

    tree: TreeScorer
    kept: KeptStates

    def score(self, batch: Prompts) -> Scored:
        """The scores; states that are not kept yet are computed, and kept from now on."""
        tree, rows = self.tree, self.tree.rows(batch)
        names = [row_name(tree.prefix.token_ids, row, tree.labels.tree.parents) for row in rows]
        with self.kept.starting(tree.model, names, [*map(len, rows)]) as states:
            logits = tree.logits(rows, states)
        return tree.read(logits)


@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """How to score, how many tokens of each prompt that leaves out, and why no faster."""

    scorer: LabelScorer
    skipped: int = 0
    reason: str = ""


def choose_scorer(
    model: Model, prompts: Prompts, labels: LabelSet, kept: KeptStates | None
) -> ScorerChoice:
    """The fastest scorer that agrees with the plain one. Forgets `kept` states that do not."""
    rows, longest = RowScorer(model, labels), max(map(len, labels.ids))
    if reason := _tree_obstacle(model, prompts, longest):
        return ScorerChoice(rows, 0, f"labels are scored one by one: {reason}")
    prefix = shared_prefix(model, prompts.token_ids, longest)
    tree, trial = TreeScorer(model, labels, prefix), _Trial.of(rows, prompts, len(prefix))
    if error := trial.error(tree):
        return ScorerChoice(rows, 0, f"labels are scored one by one: the tree's {error}")
    if kept is None:
        return ScorerChoice(tree, len(prefix))
    above = KeptTreeScorer(tree, kept)
    try:
        above.score(trial.rest)  # what is not kept yet is now, so that the next one starts from it
        error = trial.error(above)
    except Exception as problem:  # what a foreign model's code makes of it, none can foresee
        error = str(problem) or type(problem).__name__
    if not error:
        return ScorerChoice(above, len(prefix))
    kept.forget()
    return ScorerChoice(tree, len(prefix), f"all layers are computed: from kept states, {error}")


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is left of the shortest prompt, some labels, and the plain way's sums of these.

    The longest label and the last: what sees another branch, or not its own, shows there.
    """

    rest: Prompts
    chosen: list[int]
    plain: torch.Tensor
    allowed: float

    @classmethod
    def of(cls, rows: RowScorer, prompts: Prompts, skipped: int) -> "_Trial":
        every, ids = prompts.token_ids, rows.labels.ids
        shortest = prompts.of([min(range(len(every)), key=lambda row: len(every[row]))])
        chosen = [max(range(len(ids)), key=lambda label: len(ids[label])), -1]
        some = replace(rows.labels, ids=[ids[label] for label in chosen])
        plain = RowScorer(rows.model, some).score(shortest).sums
        allowed = TOLERANCE if rows.model.dtype == torch.float32 else ROUGH_TOLERANCE
        return cls(shortest.of([0], skipped), chosen, plain, allowed)

    def error(self, scorer: LabelScorer) -> str:
        """How far the scores of `scorer` are off, or nothing where that is allowed."""
        found = scorer.score(self.rest).sums[:, self.chosen]
        error = float(((found - self.plain).abs() / self.plain.abs().clamp(min=1)).max())
        return "" if error <= self.allowed else f"scores are off by {error:.1e}"


def _tree_obstacle(model: Model, prompts: Prompts, longest: int) -> str:
    """Why labels of `longest` tokens at most cannot be scored as a tree, or nothing."""
    if prompts.pictured:
        return "there are images in the prompts"
    if reason := obstacle(model, max(map(len, prompts.token_ids)) + longest):
        return reason
    attention = str(model.config.get_text_config(decoder=True)._attn_implementation)
    heeding = attention in {"sdpa", "eager"}
    return "" if heeding else f"its attention ({attention}) takes no mask for single tokens"


def _likeliest(logits: torch.Tensor, edge: float) -> list[list[int]]:
    """The tokens with the greatest `logits`, (rows, columns); -1 where another is as near as that.

    Overwrites the greatest.
    """
    most, tokens = logits.max(dim=-1)
    next_most = logits.scatter_(-1, tokens[..., None], float("-inf")).amax(dim=-1)
    likeliest: list[list[int]] = tokens.masked_fill(most - next_most < edge, -1).tolist()
    return likeliest


def answer_losses(
    model: Model,
    prompts: Prompts,
    answers: Sequence[Sequence[int]],
    *,
    pad_id: int,
    progress: Progress,
    title: str = "scoring",
) -> list[float]:
    """The mean negative log-likelihood, in nats a token, of each answer (token ids) to its prompt.

    No answer may be empty.
    """
    with (
        torch.inference_mode(),
        answering(model),
        progress.bar(title, len(prompts)) as bar,
    ):
        sums = _pair_scores(model, prompts, answers, pad_id, bar.advance)
    return (-sums / torch.tensor([len(answer) for answer in answers])).tolist()


def _pair_scores(
    model: Model,
    prompts: Prompts,
    answers: Sequence[Sequence[int]],
    pad_id: int,
    advance: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Shape (prompts,): the sum of log-likelihoods of each answer after its prompt.

    Padded on the right, where it cannot reach what is scored in any causal model.
    """
    pairs = list(zip(prompts.token_ids, answers, strict=True))
    sums = torch.empty(len(pairs))
    for batch in batches([[*prompt, *answer] for prompt, answer in pairs], TOKEN_BUDGET):
        rows = [[*pairs[i][0], *pairs[i][1][:-1]] for i in batch]
        first = min(len(pairs[i][0]) for i in batch) - 1
        inputs = right_padded(rows, pad_id)
        if prompts.eyes is not None:
            inputs |= prompts.eyes.inputs(prompts.of(batch).shown(), inputs["input_ids"])
        columns = torch.arange(first, max(map(len, rows)))
        logits = logits_at(model, columns, **inputs, use_cache=False).log_softmax(dim=-1)
        for row, index in enumerate(batch):
            prompt, answer = pairs[index]
            places = torch.arange(len(answer)) + len(prompt) - 1 - first
            sums[index] = logits[row, places, torch.tensor(answer)].sum()
        advance(len(batch))
    return sums


def _visible(pads: torch.Tensor, longest: int, tree: LabelTree, shared: int) -> torch.Tensor:
    """Shape (rows, own tokens and nodes, prefix, own tokens and nodes): who sees whom."""
    rows, nodes = len(pads), len(tree.tokens)
    size = longest + nodes
    seen = torch.zeros(rows, size, shared + size, dtype=torch.bool)
    seen[:, :, :shared] = True
    real = torch.arange(longest) >= pads[:, None]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    seen[:, :longest, shared : shared + longest] = causal & real[:, None]
    seen[:, longest:, shared : shared + longest] = real[:, None]
    seen[:, longest:, shared + longest :] = tree.sees()
    return seen


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As the models add it to their scores; a boolean mask is misread by eager attention."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, lowest)[:, None]


def logits_at(model: Model, columns: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """Float32 logits in `columns` alone, where the model can do that."""
    inputs = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
    if takes_argument(model, "logits_to_keep"):
        logits = model(**inputs, logits_to_keep=columns.to(model.device)).logits
    else:
        logits = model(**inputs).logits[:, columns]
    return logits.float()
