"""Chat templates of strangers at work: as transformers runs them, with an end to time and memory.

Jinja's sandbox keeps a template from the machine, but not from looping for hours or from writing
gigabytes. Here every block, call, filter and operator looks at the clock and at what was made so
far, and nothing is made whose size can be told beforehand to be too large.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache, wraps
from string import Formatter
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

# Seconds of processor time that one conversation may take; those of real templates take 0.001.
SECONDS = 10.0
# Characters that may be made for one conversation, and in one operation on the way. An item of a
# list counts as so many.
MADE, AT_ONCE, ITEM = 100_000_000, 300_000_000, 100
# A number that a text function is given, such as a width; as Jinja's sandbox has it of ranges.
NUMBER, BITS = 100_000, 4096
# Characters of a template; the longest known has 20,000.
LONGEST = 1_000_000

# In `%` and `format`: a width that is computed, or has six digits and more.
WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\*|\d{6})")
WIDE_FIELD = re.compile(r"\{|\d{6}")


class LimitError(Exception):
    """A template that takes too long, or makes too much."""


def rendered(source: str, /, **variables: Any) -> str:
    """The text that the template `source` makes of `variables`.

    Raises LimitError beyond the limits above, and whatever else a template raises.
    """
    if len(source) > LONGEST:
        raise LimitError(f"has more than {LONGEST:,} characters")
    template = _compiled(source)
    template.environment.begin()  # type: ignore[attr-defined]
    return template.render(variables)


def environment() -> "Sandbox":
    """Jinja with what transformers gives to chat templates."""
    made = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, LoopControlExtension]
    )
    made.filters = {name: _bounded(made, name, of) for name, of in made.filters.items()}
    made.filters["tojson"] = _bounded(made, "tojson", _to_json)
    made.globals |= {"raise_exception": _raise, "dict": _Dict(), "namespace": _Namespace}
    del made.globals["lipsum"]  # a loop as long as its argument
    return made


@lru_cache(maxsize=32)
def _compiled(source: str) -> jinja2.Template:
    return environment().from_string(source)


class _Generator(CodeGenerator):
    """Jinja's compiler, which has every block and every value made in a template looked at."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        nodes = list(nodes)
        self.writeline(f"environment.step({_constant(nodes)})")
        super().blockvisit(nodes, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.joined")  # and what is joined, in brackets
        super().visit_Tuple(nodes.Tuple(node.nodes, "store"), frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self.write("environment.made(")
        super().visit_List(node, frame)
        self.write(")")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self.write("environment.made(")
        super().visit_Dict(node, frame)
        self.write(")")

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx != "load":  # names that are assigned to
            super().visit_Tuple(node, frame)
            return
        self.write("environment.made(")
        super().visit_Tuple(node, frame)
        self.write(")")


class Generation(Extension):
    """transformers' `{% generation %}`, by which it tells answers; the text is as without."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """What stands between the tags, as a block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox with limits. What is left of them is of the rendering under way."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **settings: Any) -> None:
        # Constants would be computed while the template is compiled, in one piece.
        super().__init__(optimized=False, **settings)
        self.finalize = pass_context(lambda _, value: self.shown(value))
        self.left, self.deadline = 0, 0.0

    def begin(self) -> None:
        """Another conversation."""
        self.left, self.deadline = MADE, time.thread_time() + SECONDS

    def step(self, made: int) -> None:
        """A block is entered, or a function called; `made` characters come of it."""
        self.left -= made + 1
        if self.left < 0:
            raise LimitError(f"makes more than {MADE:,} characters of one conversation")
        if time.thread_time() > self.deadline:
            raise LimitError(f"takes more than {SECONDS:g} seconds for one conversation")

    def made(self, value: Any) -> Any:
        """A value that was made."""
        if isinstance(value, str | bytes):
            self.step(len(value))
        elif isinstance(value, Collection | Namespace):
            self.step(len(value) if isinstance(value, Collection) else 1)
            if weight(value, MADE) > MADE:  # lists of the same list are written out in full
                raise LimitError(f"makes a list of more than {MADE // ITEM:,} items")
        return value

    def shown(self, value: Any) -> Any:
        """A value that is written."""
        return self.made(value if isinstance(value, str) else str(self.made(value)))

    def joined(self, *values: Any) -> str:
        """The operator `~`."""
        return str(self.made("".join(map(str, map(self.made, values)))))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One of the operators that are looked at."""
        if operator == "%" and isinstance(left, str):
            _check_format(left, "%")
        if operator == "*":
            _check_product(left, right)
        if operator == "**" and _bits(left) * abs(right) > BITS:
            raise LimitError("computes with too large a number")
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **named: Any) -> Any:
        """A macro, a function or a method of a value."""
        method = getattr(function, "__wrapped__", function)  # format is wrapped by the sandbox
        on = getattr(method, "__self__", None)
        if isinstance(on, str | bytes | int | float):
            _check_operands(method.__name__, on, (*args, *named.values()))
        return self.made(super().call(context, function, *args, **named))


def weight(value: Any, most: int) -> int:
    """The characters in `value` and ITEM for each item, counted until they are more than `most`."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if isinstance(value, Namespace):
        value = value._Namespace__attrs
    if not isinstance(value, Collection):
        return 1
    total = ITEM
    for part in (*value.keys(), *value.values()) if isinstance(value, Mapping) else value:
        total += ITEM + weight(part, most - total)
        if total > most:
            break
    return total


def _bounded(sandbox: Sandbox, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is looked at as a call is."""

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        # Some are given the context first.
        given = args[1:] if hasattr(function, "jinja_pass_arg") else args
        _check_operands(name, given[0], (*given[1:], *named.values()))
        return sandbox.made(function(*args, **named))

    return run


def _check_operands(name: str, on: Any, others: tuple[Any, ...]) -> None:
    """Raise LimitError where what `name` makes of `on` and `others` may be too large."""
    if name in ("format", "format_map") and isinstance(on, str):
        _check_format(on, "%" if name == "format" and "%" in on else "{")
    for other in others:
        if isinstance(other, int) and abs(other) > NUMBER:
            raise LimitError(f"gives the number {other:.3g} to {name}")
        _check_product(on, other)


def _check_product(left: Any, right: Any) -> None:
    """Raise LimitError where as many times as there are of one the other is too much."""
    if isinstance(left, int) and isinstance(right, int):
        if _bits(left) + _bits(right) > BITS:
            raise LimitError("computes with too large a number")
        return
    size = 1
    for side in (left, right):
        size *= max(1, abs(side) if isinstance(side, int) else weight(side, AT_ONCE))
    if size > AT_ONCE:
        raise LimitError(f"makes more than {AT_ONCE:,} characters at once")


def _check_format(text: str, kind: str) -> None:
    fields = (spec or "" for _, _, spec, _ in Formatter().parse(text)) if kind == "{" else ()
    wide = WIDE_PERCENT.search(text) if kind == "%" else any(map(WIDE_FIELD.search, fields))
    if wide:
        raise LimitError("formats with too large a width")


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 1


def _constant(block: Iterable[nodes.Node]) -> int:
    """The characters that a block writes whatever it is given."""
    outputs = (node for node in block if isinstance(node, nodes.Output))
    texts = (part for node in outputs for part in node.nodes)
    return sum(len(part.data) for part in texts if isinstance(part, nodes.TemplateData))


# As transformers defines them for its own sandbox.


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Dict:
    """`dict`, of which a template reaches nothing else."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """Jinja's, without names that begin as Python's own do."""

    def __init__(self, /, *args: Any, **named: Any) -> None:
        given = dict(*args, **named)
        for name in given:
            _check_name(name)
        super().__init__(given)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace with the name {name!r}")
