"""Which chat template is used: the model's own, one that ships with kilotune, or a file."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2

from kilotune.data.finding import Finding, finding
from kilotune.errors import KilotuneError
from kilotune.recipe.schema import TEMPLATES
from kilotune.rendering.clock import DATE, asks_for_the_date, with_stopped_clock
from kilotune.rendering.encoding import Tokenizer, token_id
from kilotune.rendering.sandbox import environment

MARKERS = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """A template's Jinja text, the markers it adds to the control tokens, and what to say."""

    source: str
    markers: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def choose_template(tokenizer: Tokenizer, wanted: str) -> TemplateChoice:
    """The chat template that `wanted` names: auto, chatml, plain, or a Jinja file.

    `auto` is the tokenizer's own; without one `chatml` where both markers are tokens, else
    `plain`. One that prints today's date is made to print the same on every day. Raises
    KilotuneError for a file that cannot be read.
    """
    own = tokenizer.get_chat_template() if getattr(tokenizer, "chat_template", None) else None
    have_markers = all(token_id(tokenizer, marker) is not None for marker in MARKERS)
    said: list[Finding] = []
    if wanted == "auto" and own:
        source = own
    elif wanted not in TEMPLATES:
        source = _read(Path(wanted))
    else:
        name = wanted if wanted != "auto" else "chatml" if have_markers else "plain"
        source = _supplied(name, tokenizer)
        if wanted == "auto":
            said.append(finding("template-chosen", detail=f"using '{name}'"))
        if name == "chatml" and not have_markers:
            said.append(finding("markers-not-tokens"))
    if asks_for_the_date(source):
        said.append(finding("date-fixed", detail=DATE))
        source = with_stopped_clock(source)
    # Some vocabularies hold the markers without calling them special.
    used = have_markers and all(marker in source for marker in MARKERS)
    return TemplateChoice(source, MARKERS if used else (), tuple(said))


def _supplied(name: str, tokenizer: Tokenizer) -> str:
    file = files("kilotune.rendering") / "templates" / f"{name}.jinja"
    source = file.read_text(encoding="utf-8")
    return "{{ bos_token }}" + source if wants_bos(tokenizer) else source


def wants_bos(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer puts a beginning-of-sequence token before plain text by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("x")[:1] == [bos]


def _read(path: Path) -> str:
    try:
        source = path.expanduser().read_text(encoding="utf-8")
        environment().parse(source)
        return source
    except RecursionError as error:
        raise KilotuneError(
            "not a valid Jinja template: nested too deeply", where=str(path), fix="Correct it there"
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise KilotuneError(
            f"not a valid Jinja template: {error.message}",
            where=f"{path}:{error.lineno}",
            fix="Correct it there",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise KilotuneError(
            "cannot read the chat template",
            where=str(path),
            fix=f"Give a Jinja file, or one of: {', '.join(TEMPLATES)}",
        ) from error
