"""Examples that begin alike, laid out as one sequence in which every beginning stands once.

The beginnings are found from the token ids: nothing has to be declared, and several system
messages, or a conversation that several examples continue, are shared as well (a tree).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, takewhile

import torch

from kilotune.models.attention import Pack
from kilotune.models.attention_pieces import Block
from kilotune.models.vision import Eyes
from kilotune.rendering.label_mask import Rendering
from kilotune.training.batches import Batch, States

Tokens = Sequence[int]

# Tokens that sharing must save to be worth a piece of attention of its own.
MIN_SAVED = 16
# Longer stretches are cut: what one sees of itself is computed whole and half masked out.
STRETCH = 256
# Stretches down to this share of the longest of a block are padded to its length, and so are those
# that need no more scores than this for it: a block of their own would cost more.
ALIKE, FEW = 0.7, 6000


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens `start` to `stop` of its `members` (numbers of examples), which have them in common.

    `children` continue it. A member may end here.
    """

    start: int
    stop: int
    members: tuple[int, ...]
    children: tuple["Stretch", ...]


@dataclass(frozen=True, slots=True)
class PackLayout:
    """Where the tokens of some examples stand in their pack.

    `source[t]` is the example and the place in it that token t of the pack is taken from;
    `places[e][i]` is where token i of example e stands. `stretches` are (start, stop, end): the
    tokens up to `end` continue those of the stretch.
    """

    source: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, ...], ...]
    stretches: tuple[tuple[int, int, int], ...]


def pack(
    renderings: Sequence[Rendering], states: States | None = None, eyes: Eyes | None = None
) -> Batch:
    """One packed sequence of T tokens instead of a padded batch.

    Positions count on from the shared beginning. `columns` and `targets` (1, K) are explicit pairs
    of a position and the token that is trained there, since the end of a beginning may be followed
    by several. `states` of a shared beginning are taken from one example. Images as in `collate`;
    one that stands in a shared beginning goes in once.
    """
    sequences = [rendering.token_ids for rendering in renderings]
    layout = lay_out(told_apart(renderings, eyes))
    pairs = [
        (places[index - 1], rendering.token_ids[index], rendering.weight)
        for rendering, places in zip(renderings, layout.places, strict=True)
        for index in range(1, len(places))
        if rendering.label_mask[index]
    ]
    input_ids = torch.tensor([[sequences[e][i] for e, i in layout.source]])
    counted = torch.tensor([[place for _, place in layout.source]])
    beside = _positions(renderings, layout, eyes) if eyes else None
    weighted = any(rendering.weight != 1 for rendering in renderings)
    return Batch(
        input_ids,
        # A mask of four axes is passed on as it is: no dense one is built.
        attention_mask=torch.zeros(1, 1, 1, 1),
        position_ids=counted if beside is None else beside,
        columns=torch.tensor([column for column, _, _ in pairs], dtype=torch.long),
        targets=torch.tensor([[target for _, target, _ in pairs]], dtype=torch.long),
        weights=torch.tensor([[weight for _, _, weight in pairs]]) if weighted else None,
        images=_images(renderings, layout, input_ids, eyes) if eyes and states is None else {},
        hidden_states=_states(renderings, layout, states) if states else None,
        pack=sight(layout, max(map(len, sequences))),
    )


def told_apart(renderings: Sequence[Rendering], eyes: Eyes | None) -> list[tuple[int, ...]]:
    """The token ids of each rendering, in which different images have different tokens."""
    if eyes is None:
        return [rendering.token_ids for rendering in renderings]
    return [eyes.vision.told_apart(r.token_ids, r.images) for r in renderings]


def _states(renderings: Sequence[Rendering], layout: PackLayout, states: States) -> torch.Tensor:
    rows = [
        states(renderings[example])[[place for _, place in run]]
        for example, run in groupby(layout.source, key=lambda source: source[0])
    ]
    return torch.cat(rows)[None]


def _images(
    renderings: Sequence[Rendering], layout: PackLayout, input_ids: torch.Tensor, eyes: Eyes
) -> dict[str, torch.Tensor]:
    """The inputs for the images of a pack, in the order in which they stand in it."""
    starts = [eyes.vision.starts(r.token_ids, r.images) for r in renderings]
    shown = [starts[e][place] for e, place in layout.source if place in starts[e]]
    return eyes.inputs(shown, input_ids)


def _positions(
    renderings: Sequence[Rendering], layout: PackLayout, eyes: Eyes
) -> torch.Tensor | None:
    """`position_ids` (3, 1, T) beside images; None where tokens alone are counted."""
    counted = [
        eyes.positions(r.images, ids, torch.ones_like(ids))
        for r in renderings
        for ids in [torch.tensor([r.token_ids])]
    ]
    if all(own is None for own in counted):
        return None
    parts = [
        torch.arange(len(r.token_ids)).expand(3, -1) if own is None else own[:, 0]
        for r, own in zip(renderings, counted, strict=True)
    ]
    columns = [parts[example][:, place] for example, place in layout.source]
    return torch.stack(columns, dim=1)[:, None]


def lay_out(sequences: Sequence[Tokens]) -> PackLayout:
    """Lay out the tree of what `sequences` share, each stretch followed by what continues it."""
    source: list[tuple[int, int]] = []
    places: list[list[int]] = [[] for _ in sequences]
    stretches: list[tuple[int, int, int]] = []

    def place(stretch: Stretch) -> None:
        begin = len(source)
        source.extend((stretch.members[0], i) for i in range(stretch.start, stretch.stop))
        stop = len(source)
        for member in stretch.members:
            places[member] += range(begin, stop)
        for child in stretch.children:
            place(child)
        stretches.append((begin, stop, len(source)))

    for root in tree(sequences):
        place(root)
    return PackLayout(tuple(source), tuple(map(tuple, places)), tuple(sorted(stretches)))


def shared_length(sequences: Sequence[Tokens]) -> int:
    """How many first tokens all of `sequences` have in common."""
    return _alike(sequences, 0)


def tree(sequences: Sequence[Tokens]) -> tuple[Stretch, ...]:
    """What `sequences` have in common from their first token on, and how they go on."""
    everyone = tuple(range(len(sequences)))
    return tuple(_branches(sequences, everyone, start=0, depth=0))


def _branches(
    sequences: Sequence[Tokens], members: tuple[int, ...], start: int, depth: int
) -> Iterator[Stretch]:
    """How `members`, alike in their first `depth` tokens, go on; stretches begin at `start`."""
    groups: dict[int, list[int]] = {}
    for member in members:
        if len(sequences[member]) > depth:
            groups.setdefault(sequences[member][depth], []).append(member)
    for group in groups.values():
        stop = _alike([sequences[member] for member in group], depth)
        going_on = tuple(member for member in group if len(sequences[member]) > stop)
        ways = len({sequences[member][stop] for member in going_on})
        # Whoever ends here needs the stretch too, if others go on.
        copies = max(ways, 1) + (len(going_on) < len(group) and ways > 0)
        if copies > 1 and (copies - 1) * (stop - start) < MIN_SAVED:
            yield from _branches(sequences, going_on, start, stop)
            ended = tuple(member for member in group if member not in going_on)
            if ended:
                yield Stretch(start, stop, ended, ())
        else:
            children = tuple(_branches(sequences, going_on, stop, stop))
            yield Stretch(start, stop, tuple(group), children)


def _alike(sequences: Sequence[Tokens], depth: int) -> int:
    """How many first tokens all `sequences` have in common; they do in the first `depth`."""
    columns = zip(*(sequence[depth:] for sequence in sequences), strict=False)
    return depth + sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def sight(layout: PackLayout, longest: int) -> Pack:
    """How the tokens of a layout see each other, in pieces of dense attention."""
    pieces: list[tuple[int, int]] = []
    reaches: list[tuple[int, int, int, int]] = []
    for start, stop, end in layout.stretches:
        cuts = [*range(start, stop, STRETCH), stop]
        for low, high in pairwise(cuts):
            pieces.append((low, high))
            if low > start:
                reaches.append((low, high, start, low))
        if end > stop:
            reaches.append((stop, end, start, stop))
    return Pack(tuple(_blocks(pieces)), tuple(reaches), longest)


def _blocks(pieces: Sequence[tuple[int, int]]) -> Iterator[Block]:
    """Pieces of about the same length together."""
    waiting = sorted(pieces, key=lambda piece: piece[0] - piece[1])
    while waiting:
        length = waiting[0][1] - waiting[0][0]
        alike = [piece for piece in waiting if _alike_in_length(piece[1] - piece[0], length)]
        waiting = waiting[len(alike) :]
        yield _block(alike, length)


def _alike_in_length(own: int, longest: int) -> bool:
    return own >= ALIKE * longest or longest**2 - own**2 <= FEW


def _block(pieces: Sequence[tuple[int, int]], length: int) -> Block:
    starts = torch.tensor([start for start, _ in pieces])[:, None]
    lasts = torch.tensor([stop - 1 for _, stop in pieces])[:, None]
    wanted = starts + torch.arange(length)
    real = (wanted <= lasts).flatten()
    gather = torch.minimum(wanted, lasts).flatten()
    begin = int(starts[0])
    run = torch.equal(gather, torch.arange(begin, begin + len(gather)))
    return Block(
        count=len(pieces),
        length=length,
        gather=gather,
        places=real.nonzero().squeeze(1),
        tokens=wanted.flatten()[real],
        start=begin if run else None,
    )
