"""YAML as kilotune reads it: plain data of bounded size, in which nothing is lost in silence."""

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from kilotune.errors import shorten

# A recipe with every setting spelled out is below 5 kB, 4 levels deep and of 300 values.
DEPTH, VALUES = 50, 20_000
# Characters of a text that count as one more value, and bits that no number of a recipe has.
LONG, BITS = 100, 256


class YamlLimitError(ComposerError):
    """YAML in which something would be lost, or which means far too much."""


def parse_yaml(text: str) -> Any:
    """The one document in `text`, of dicts, lists and scalars; names are texts, as written.

    Raises YamlLimitError for a name that is given twice, for nesting deeper than DEPTH and for more
    than VALUES values once aliases are followed; ConstructorError for a key or a value that cannot
    be read; and another yaml.YAMLError for what is not YAML.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits; an alias counts as all that it stands for."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.sizes: dict[int, int] = {}  # values in each composed node, by the node's identity

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        self.depth += 1
        if self.depth > DEPTH:
            raise YamlLimitError(None, None, f"nested more than {DEPTH} deep", mark)
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if not isinstance(event, yaml.AliasEvent):
            self.sizes[id(node)] = self._size(node)
        elif id(node) not in self.sizes:  # it is still being composed
            raise YamlLimitError(None, None, "an alias that refers to itself", mark)
        if self.sizes[id(node)] > VALUES:
            raise YamlLimitError(None, None, f"more than {VALUES:,} values", mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node: Any = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            mark: Any = key.start_mark
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be plain text", mark)
            if key.value in seen:
                raise YamlLimitError(
                    None, None, f"'{shorten(key.value)}' is given twice", key.start_mark
                )
            seen.add(key.value)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep) for key, value in node.value}

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            value: Any = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > BITS:
                raise OverflowError
            return value
        except yaml.YAMLError:
            raise
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            # As of a month 13, or `!!int x`: PyYAML takes the tag's word for it.
            what = f"not a valid {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, what, node.start_mark) from error

    def _size(self, node: Any) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1 + len(node.value) // LONG
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        return 1 + sum(self.sizes[id(part)] for part in parts)
