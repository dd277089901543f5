"""Chat templates of strangers at work: as transformers runs them, with an end to time and memory.

Jinja's sandbox keeps a template from the machine, but not from looping for hours or from writing
gigabytes. Here every block, call, filter and operator looks at the clock and at what was made so
far, and nothing is made whose size can be told beforehand to be too large.
"""

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache, wraps
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from kilotune.rendering.sizes import (
    ITEM,
    TemplateLimitError,
    check_filter,
    check_method,
    check_percent,
    check_power,
    check_product,
    weight,
)

# Seconds of processor time that one conversation may take; those of real templates take 0.001.
SECONDS = 10.0
# Characters that may be made for one conversation.
MADE = 100_000_000
# What Jinja adds to the arguments of a call, within loops and blocks.
JINJAS = {"_loop_vars", "_block_vars"}
# Characters of a template; the longest known has 20,000.
LONGEST = 1_000_000


def rendered(source: str, /, **variables: Any) -> str:
    """The text that the template `source` makes of `variables`.

    Raises TemplateLimitError beyond the limits above, and whatever else a template raises.
    """
    if len(source) > LONGEST:
        raise TemplateLimitError(f"has more than {LONGEST:,} characters")
    template = _compiled(source)
    template.environment.begin()  # type: ignore[attr-defined]
    return template.render(variables)


def environment() -> "Sandbox":
    """Jinja with what transformers gives to chat templates."""
    made = Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, LoopControlExtension]
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


class GenerationTag(Extension):
    """transformers' `{% generation %}`, by which it tells answers; the text is as without."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """What stands between the tags, as a block."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Left(threading.local):
    """What is left to the conversation that a thread renders; the time is the thread's own."""

    characters, until = 0, 0.0


class Sandbox(ImmutableSandboxedEnvironment):
    """transformers' sandbox with limits, for any number of threads."""

    code_generator_class = _Generator
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **settings: Any) -> None:
        # Constants would be computed while the template is compiled, in one piece.
        super().__init__(optimized=False, **settings)
        self.finalize = pass_context(lambda _, value: self.shown(value))
        self.left = _Left()

    def begin(self) -> None:
        """Another conversation."""
        self.left.characters, self.left.until = MADE, time.thread_time() + SECONDS

    def step(self, made: int) -> None:
        """A block is entered, or a function called; `made` characters come of it."""
        self.left.characters -= made + 1
        if self.left.characters < 0:
            raise TemplateLimitError(f"makes more than {MADE:,} characters of one conversation")
        if time.thread_time() > self.left.until:
            raise TemplateLimitError(f"takes more than {SECONDS:g} seconds for one conversation")

    def made(self, value: Any) -> Any:
        """A value that was made."""
        if isinstance(value, str | bytes):
            self.step(len(value))
        elif isinstance(value, Collection | Namespace):
            self.step(len(value) if isinstance(value, Collection) else 1)
            if weight(value, MADE) > MADE:  # lists of the same list are written out in full
                raise TemplateLimitError(f"makes a list of more than {MADE // ITEM:,} items")
        return value

    def shown(self, value: Any) -> Any:
        """A value that is written."""
        return self.made(value if isinstance(value, str) else str(self.made(value)))

    def joined(self, *values: Any) -> str:
        """The operator `~`."""
        return str(self.made("".join(map(str, map(self.made, values)))))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """One of the operators that are looked at."""
        if operator == "%" and isinstance(left, str | bytes):
            check_percent(left, right)
        if operator == "*":
            check_product(left, right)
        if operator == "**":
            check_power(left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **named: Any) -> Any:
        """A macro, a function or a method of a value."""
        method = function
        if not hasattr(method, "__self__"):  # the sandbox wraps format
            method = getattr(method, "__wrapped__", method)
        on = getattr(method, "__self__", None)
        if isinstance(on, str | bytes | int):
            args = _countable(method.__name__, args)
            check_method(method.__name__, on, *args, **_own(named))
        return self.made(super().call(context, function, *args, **named))


def _bounded(sandbox: Sandbox, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is looked at as a call is."""

    @wraps(function)
    def run(*args: Any, **named: Any) -> Any:
        args = _countable(name, args)
        # Some are given the context first.
        given = args[1:] if hasattr(function, "jinja_pass_arg") else args
        check_filter(name, *given, **named)
        return sandbox.made(function(*args, **named))

    return run


def _own(named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a template gives by name, without those that Jinja adds."""
    return {name: given for name, given in named.items() if name not in JINJAS}


def _countable(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """With lists in place of generators, whose items `join` would not tell the number of."""
    if name != "join":
        return args
    return tuple(list(each) if isinstance(each, Iterator) else each for each in args)


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
