"""A model's modules as a tree: how many parameters each has, and how many of them are trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kilotune.models.pretrained import Model
from kilotune.models.quantisation import elements
from kilotune.models.streaming import streamed_layers
from kilotune.models.trainable import of_adapter, plain_name


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree: equal layers are one, such as `layers.0-29`, counted together."""

    depth: int
    name: str
    trained: int
    total: int


def module_tree(model: Model) -> tuple[Branch, ...]:
    """The modules of `model` down to where all or nothing is trained; adapters count with theirs.

    Layers in a row that are equal in sizes and in what is trained are one branch.
    """
    root = _Node()
    for name, size, trained in parameter_sizes(model):
        root.add(_module_path(name), size, trained)
    return tuple(_branches(root, 0))


def parameter_sizes(model: Model) -> Iterator[tuple[str, int, bool]]:
    """Plain name, size and whether it is trained of every parameter, those on disk included."""
    for name, parameter in model.named_parameters():
        yield plain_name(name), elements(parameter), parameter.requires_grad
    for path, streamed in streamed_layers(model):
        for name, parameter in streamed.layer.named_parameters():
            yield f"{plain_name(path)}.{name}", parameter.numel(), False


def tree_lines(branches: Sequence[Branch]) -> list[str]:
    """The tree for a person, a line a branch, columns below each other."""
    names = ["  " * branch.depth + branch.name for branch in branches]
    rows = [(f"{branch.trained:,}", f"{branch.total:,}") for branch in branches]
    wide = [max(map(len, column)) for column in (names, *zip(*rows, strict=True))]
    return [
        f"{name:<{wide[0]}}  {trained:>{wide[1]}} of {total:>{wide[2]}}"
        for name, (trained, total) in zip(names, rows, strict=True)
    ]


@dataclass(slots=True)
class _Node:
    trained: int = 0
    total: int = 0
    below: dict[str, "_Node"] = field(default_factory=dict)

    def add(self, path: Sequence[str], size: int, trained: bool) -> None:
        self.total += size
        self.trained += size * trained
        if path:
            self.below.setdefault(path[0], _Node()).add(path[1:], size, trained)


def _module_path(name: str) -> list[str]:
    path = name.split(".")[:-1]
    ends = [index for index, part in enumerate(path) if of_adapter(part)]
    return path[: ends[0]] if ends else path


def _branches(node: _Node, depth: int) -> Iterator[Branch]:
    for name, below in node.below.items():
        runs = _runs(below) if all(key.isdigit() for key in below.below) else []
        if not runs:
            yield from _branch(name, [below], depth)
        for first, last, nodes in runs:
            numbers = str(first) if first == last else f"{first}-{last}"
            yield from _branch(f"{name}.{numbers}", nodes, depth)


def _branch(name: str, nodes: Sequence[_Node], depth: int) -> Iterator[Branch]:
    trained, total = sum(n.trained for n in nodes), sum(n.total for n in nodes)
    yield Branch(depth, name, trained, total)
    if 0 < trained < total:
        several = _Node()
        for node in nodes:
            _join(several, node)
        yield from _branches(several, depth + 1)


def _runs(node: _Node) -> list[tuple[int, int, list[_Node]]]:
    """Equal nodes whose numbers follow each other, by first and last number."""
    runs: list[tuple[int, int, list[_Node]]] = []
    for key, below in node.below.items():
        number = int(key)
        if runs and runs[-1][1] == number - 1 and runs[-1][2][0] == below:
            first, _, nodes = runs[-1]
            runs[-1] = (first, number, [*nodes, below])
        else:
            runs.append((number, number, [below]))
    return runs


def _join(into: _Node, node: _Node) -> None:
    into.trained += node.trained
    into.total += node.total
    for key, below in node.below.items():
        _join(into.below.setdefault(key, _Node()), below)
