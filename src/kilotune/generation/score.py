"""Likelihoods of closed labels: every label of several examples in one forward.

A row holds one prompt and behind it all labels as a tree: each token sees the prompt and the
tokens before it on its own branch, and its position counts from the prompt's end. Labels that
begin alike share those tokens; a label's last token is not computed, since nothing follows it.
The same forward says what greedy decoding would answer, as long as that is one of the labels.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from kilotune.generation.decoding import batches
from kilotune.generation.kept import KeptStates, row_name
from kilotune.generation.prefix import Prefix, obstacle, shared_prefix
from kilotune.generation.prompts import Prompts
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


def score_labels(
    model: Model,
    prompts: Prompts,
    labels: Sequence[Sequence[int]],
    *,
    pad_id: int,
    progress: Progress,
    title: str = "scoring",
    stops: Collection[int] = (),
    kept: KeptStates | None = None,
) -> list[LabelScores]:
    """Score every label (token ids) after every prompt, in the order of `prompts`.

    `stops` are the tokens that end an answer, without which no greedy one is known. `kept` are
    states of models with the same frozen layers, to start from and to add to. All that is tried on
    the shortest prompt first. Where the model's attention does not allow the tree, each label is
    scored in a row of its own, and `progress` is told why.
    """
    if not prompts:
        return []
    lengths = torch.tensor([len(label) for label in labels])
    with torch.inference_mode():
        score_batch, shared, reason = _way(model, prompts, labels, pad_id, kept, greedy=bool(stops))
        if reason:
            progress.say(reason)
        own = [prompt[shared:] for prompt in prompts.token_ids]
        sums = torch.empty(len(prompts), len(labels))
        greedy: list[tuple[int, ...] | None] = [None] * len(prompts)
        tree = LabelTree.of(labels)
        with progress.bar(title, len(prompts)) as bar:
            for batch in batches([[*row, *tree.tokens] for row in own], TOKEN_BUDGET):
                found = score_batch(prompts.of(batch, shared))
                sums[batch] = found.sums
                for row, likeliest in zip(batch, found.likeliest, strict=False):
                    greedy[row] = tree.greedy(likeliest, stops)
                bar.advance(len(batch))
    rows = zip(sums, sums / lengths, sums.softmax(dim=1), greedy, strict=True)
    return [
        LabelScores(tuple(row.tolist()), tuple(mean.tolist()), tuple(share.tolist()), said)
        for row, mean, share, said in rows
    ]


@dataclass(frozen=True, slots=True)
class Scored:
    """Of a batch: sums of log-likelihoods, (rows, labels), and what follows on each column.

    `likeliest` are (rows, columns) tokens, -1 on an edge; none where they are not known.
    """

    sums: torch.Tensor
    likeliest: Sequence[Sequence[int]] = ()


ScoreBatch = Callable[[Prompts], Scored]


def _way(
    model: Model,
    prompts: Prompts,
    labels: Sequence[Sequence[int]],
    pad_id: int,
    kept: KeptStates | None,
    *,
    greedy: bool,
) -> tuple[ScoreBatch, int, str]:
    """How to score a batch, how many tokens of each prompt it leaves out, and why no faster."""
    alone = "labels are scored one by one: "

    def by_row(batch: Prompts) -> Scored:
        return Scored(rows_scores(model, batch, labels, pad_id))

    if prompts.pictured:
        return by_row, 0, f"{alone}there are images in the prompts"
    lengths = [len(label) for label in labels]
    every = prompts.token_ids
    reason = obstacle(model, max(map(len, every)) + max(lengths)) or _ignores_masks(model)
    if reason:
        return by_row, 0, alone + reason
    prefix, tree = shared_prefix(model, every, max(lengths)), LabelTree.of(labels)
    from_tree = partial(tree_scores, model, tree=tree, prefix=prefix, pad_id=pad_id, greedy=greedy)

    def by_tree(batch: Prompts) -> Scored:
        return from_tree(batch.token_ids)

    def from_kept(batch: Prompts) -> Scored:
        return from_tree(batch.token_ids, kept=kept)

    # The longest label and the last: what sees another branch, or not its own, shows there.
    shortest = min(range(len(every)), key=lambda row: len(every[row]))
    trial, chosen = prompts.of([shortest]), [lengths.index(max(lengths)), len(labels) - 1]
    plain = rows_scores(model, trial, [labels[i] for i in chosen], pad_id)
    allowed = TOLERANCE if model.dtype == torch.float32 else ROUGH_TOLERANCE
    rest = trial.of([0], len(prefix))

    def error(found: Scored) -> float:
        return float(((found.sums[:, chosen] - plain).abs() / plain.abs().clamp(min=1)).max())

    found = error(by_tree(rest))
    if not found <= allowed:
        return by_row, 0, f"{alone}the tree's scores are off by {found:.1e}"
    if kept is None:
        return by_tree, len(prefix), ""
    try:
        from_kept(rest)  # what is not kept yet is now, so that the next one starts from it
        found = error(from_kept(rest))
        reason = "" if found <= allowed else f"scores are off by {found:.1e}"
    except Exception as problem:  # what a foreign model's code makes of it, none can foresee
        reason = str(problem)
    if not reason:
        return from_kept, len(prefix), ""
    kept.forget()
    return by_tree, len(prefix), f"all layers are computed: from kept states, {reason}"


def tree_scores(
    model: Model,
    rests: Sequence[Sequence[int]],
    tree: LabelTree,
    prefix: Prefix,
    pad_id: int,
    kept: KeptStates | None = None,
    *,
    greedy: bool = True,
) -> Scored:
    """How likely the labels are where `rests` go on after `prefix`; if `greedy`, what is likeliest.

    Rows are padded between the prefix and what is their own, so that all trees stand in the same
    columns. Where all of them are `kept`, the model starts from those states.
    """
    longest = max(map(len, rests))
    pads = torch.tensor([longest - len(rest) for rest in rests])
    ids = [[*rest, *tree.tokens] for rest in rests]
    lengths = len(prefix) + longest - pads
    own = (torch.arange(longest) + len(prefix) - pads[:, None]).clamp(min=0)
    branches = lengths[:, None] - 1 + torch.tensor(tree.depths, dtype=torch.long)
    cache = {"cache": prefix.cache(len(rests))} if prefix else {}
    names = [row_name(prefix.token_ids, row, tree.parents) for row in ids] if kept else []
    with kept.starting(model, names, [*map(len, ids)]) if kept else nullcontext() as states:
        size = longest + len(tree.tokens)
        padded = torch.tensor([[pad_id] * (size - len(row)) + row for row in ids])
        given = {"input_ids": padded} if states is None else {"inputs_embeds": states}
        logits = logits_at(
            model,
            torch.arange(longest - 1, size),
            **given,
            position_ids=torch.cat([own, branches], dim=1),
            attention_mask=_additive(_visible(pads, longest, tree, len(prefix)), model.dtype),
            use_cache=bool(prefix),
            **cache,
        )
    columns = torch.tensor(tree.columns, device=logits.device)
    targets = torch.tensor(tree.targets, device=logits.device)
    found = (logits[:, columns, targets] - logits.logsumexp(dim=-1)[:, columns]).cpu()
    sums = torch.zeros(len(rests), max(tree.owners) + 1)
    sums.index_add_(1, torch.tensor(tree.owners), found)
    edge = EDGE if model.dtype == torch.float32 else ROUGH_EDGE
    return Scored(sums, _likeliest(logits, edge) if greedy else ())


def _likeliest(logits: torch.Tensor, edge: float) -> list[list[int]]:
    """The tokens with the greatest `logits`, (rows, columns); -1 where another is as near as that.

    Overwrites the greatest.
    """
    most, tokens = logits.max(dim=-1)
    next_most = logits.scatter_(-1, tokens[..., None], float("-inf")).amax(dim=-1)
    likeliest: list[list[int]] = tokens.masked_fill(most - next_most < edge, -1).tolist()
    return likeliest


def rows_scores(
    model: Model, prompts: Prompts, labels: Sequence[Sequence[int]], pad_id: int
) -> torch.Tensor:
    """The same sums the plain way: each label of each prompt in a padded row of its own."""
    each = prompts.of([row for row in range(len(prompts)) for _ in labels])
    sums = _pair_scores(model, each, [*labels] * len(prompts), pad_id, lambda _: None)
    return sums.view(len(prompts), len(labels))


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
    with torch.inference_mode(), progress.bar(title, len(prompts)) as bar:
        sums = _pair_scores(model, prompts, answers, pad_id, bar.advance)
    return (-sums / torch.tensor([len(answer) for answer in answers])).tolist()


def _pair_scores(
    model: Model,
    prompts: Prompts,
    answers: Sequence[Sequence[int]],
    pad_id: int,
    advance: Callable[[int], None],
) -> torch.Tensor:
    """Shape (prompts,): the sum of log-likelihoods of each answer after its prompt.

    Padded on the right, where it cannot reach what is scored in any causal model.
    """
    pairs = list(zip(prompts.token_ids, answers, strict=True))
    sums = torch.empty(len(pairs))
    for batch in batches([[*prompt, *answer] for prompt, answer in pairs], TOKEN_BUDGET):
        rows = [[*pairs[i][0], *pairs[i][1][:-1]] for i in batch]
        first = min(len(pairs[i][0]) for i in batch) - 1
        longest = max(map(len, rows))
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])
        shown = prompts.of(batch).shown()
        seen = prompts.eyes.inputs(shown, ids) if prompts.eyes is not None else {}
        logits = logits_at(
            model,
            torch.arange(first, longest),
            input_ids=ids,
            attention_mask=torch.tensor(mask),
            use_cache=False,
            **seen,
        ).log_softmax(dim=-1)
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


def _ignores_masks(model: Model) -> str:
    """Why a mask of its own for every token would not be heeded, or nothing."""
    attention = str(model.config.get_text_config(decoder=True)._attn_implementation)
    heeding = attention in {"sdpa", "eager"}
    return "" if heeding else f"its attention ({attention}) takes no mask for single tokens"
