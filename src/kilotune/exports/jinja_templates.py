"""The templates of what is written beside exported weights, filled in."""

import json
import shlex
from importlib.resources import files
from typing import Any

import jinja2

from kilotune.exports.markdown import block, code, plain
from kilotune.messages.sentences import say


def render_template(name: str, **values: Any) -> str:
    """The text of the template `name` with `values`. Raises jinja2's UndefinedError without one."""

    def load(name: str) -> str:
        return (files("kilotune.exports") / "templates" / name).read_text(encoding="utf-8")

    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(load),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"plain": plain, "code": code, "block": block, "say": say}
    templates.filters |= {"json": json.dumps, "quote": shlex.quote}
    return templates.get_template(name).render(values)
