"""`kilotune render`: what a model would be trained on, token by token."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import ROUNDED
from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from kilotune.cli import options
from kilotune.cli.data_options import RENDERED, DataOptions
from kilotune.cli.findings import print_findings
from kilotune.cli.option_groups import Only
from kilotune.cli.terminal import command, log, out, print_json, status_of

if TYPE_CHECKING:
    from kilotune.rendering.label_mask import Rendering
    from kilotune.workflows.render import Preview

# From so many on, equal special tokens in a row are counted.
LONG_RUN = 4
# Brackets say what is trained where there is no colour, and colour blindness is no hindrance.
OPEN, CLOSE = "⟦", "⟧"
TRAINED, PLAIN = "bold green", "none"
SPECIAL, TRAINED_SPECIAL = "dim cyan", "bold black on green"


def render(
    source: options.Source,
    *,
    count: Annotated[int, typer.Option("-n", metavar="N", min=0, help="How many to show.")] = 3,
    data: Annotated[DataOptions, Only(*RENDERED)],
    as_json: options.Json = False,
) -> None:
    """Show which tokens are trained, and what is wrong with the rendering of all examples.

    Needs the tokenizer, not the weights.
    """
    with command(as_json):
        from kilotune.data.files.readers import read_table
        from kilotune.recipe.functions import MODEL

        recipe = data.recipe(source, runs=MODEL)
        if not recipe.data.train.exists():
            read_table(recipe.data.train)  # a wrong path is said before the libraries load

        from kilotune.workflows import render as workflow

        with log.status("loading the tokenizer and rendering"):
            seen = workflow.render(recipe)
        if as_json:
            print_json(as_document(seen, count), status_of(seen.findings))
        else:
            _print(seen, count)
    raise typer.Exit(status_of(seen.findings))


def as_document(seen: "Preview", count: int) -> dict[str, Any]:
    """The preview as one document, the first `count` examples token by token."""
    rendered = seen.rendered
    return {
        "files": [seen.dataset.path],
        "format": seen.dataset.format,
        "task": seen.dataset.task,
        "examples": {"data": len(seen.dataset.examples)},
        "rendered": len(rendered.renderings),
        "tokens": rendered.tokens,
        "trained": rendered.trained,
        "shown": [_tokens(seen, rendering) for rendering in rendered.renderings[:count]],
        "findings": seen.findings,
    }


def _tokens(seen: "Preview", rendering: "Rendering") -> dict[str, Any]:
    template = seen.template
    tokens = [
        {
            "id": token,
            "text": template.tokenizer.decode([token]),
            "trained": trained,
            "special": token in template.encoder.special.control,
        }
        for token, trained in zip(rendering.token_ids, rendering.label_mask, strict=True)
    ]
    return {"id": rendering.example_id, "prompt": rendering.prompt_length, "tokens": tokens}


def _print(seen: "Preview", count: int) -> None:
    shown = seen.rendered.renderings[:count]
    origins = {example.id: str(example.origin) for example in seen.rendered.examples}
    for rendering in shown:
        out.print(_panel(seen, rendering, origins[rendering.example_id]))
    if shown:
        out.print(_legend())
    out.print()
    out.print(_summary(seen))
    out.print()
    print_findings(seen.findings)


def _panel(seen: "Preview", rendering: "Rendering", origin: str) -> Panel:
    total, trained = len(rendering.token_ids), rendering.trained
    figures = f"{total} tokens · prompt {rendering.prompt_length} · trained {trained}"
    return Panel(
        mask_text(seen, rendering),
        title=Text.assemble((rendering.example_id, "bold default"), (f"  {origin}", "default")),
        subtitle=Text(f"{figures} ({trained / max(1, total):.1%})", style="default"),
        title_align="left",
        subtitle_align="right",
        border_style="bright_black",
        box=ROUNDED,
        padding=(0, 1),
    )


def mask_text(seen: "Preview", rendering: "Rendering") -> Text:
    """The rendering as text: each token in the style of what becomes of it.

    A special token that stands there many times, as an image's does, is written once and counted.
    """
    tokenizer, control = seen.template.tokenizer, seen.template.encoder.special.control
    text = Text()
    ids, mask = rendering.token_ids, rendering.label_mask
    start = 0
    for end in range(1, len(ids) + 1):
        here = (mask[start], ids[start] in control)
        trained, special = here
        alike = not special or ids[end - 1 : end + 1] == (ids[start],) * 2
        if end < len(ids) and (mask[end], ids[end] in control) == here and alike:
            continue
        if trained and not (start and mask[start - 1]):
            text.append(OPEN, TRAINED)
        run = special and end - start >= LONG_RUN
        shown = ids[start : start + 1] if run else ids[start:end]
        written = tokenizer.decode(shown, clean_up_tokenization_spaces=False)
        if special:
            written = f"{written} × {end - start:,}" if run else written
            text.append(written, TRAINED_SPECIAL if trained else SPECIAL)
        else:
            text.append_text(_visible(written, TRAINED if trained else PLAIN))
        if trained and not (end < len(ids) and mask[end]):
            text.append(CLOSE, TRAINED)
        start = end
    return text


def _visible(written: str, style: str) -> Text:
    """Text with its line breaks marked, so that they can be told from those of the terminal."""
    text = Text()
    for line in written.splitlines(keepends=True):
        body = line.rstrip("\r\n")
        text.append(body, style)
        if body != line:
            text.append("↵", "bright_black")
            text.append("\n")
    return text


def _legend() -> Text:
    return Text.assemble(
        "  ", (f"{OPEN}trained{CLOSE}", TRAINED), "   not trained   ",
        ("<special>", SPECIAL), "   ",
        (OPEN, TRAINED), ("<special, trained>", TRAINED_SPECIAL), (CLOSE, TRAINED), "   ",
        ("↵ line break", "bright_black"),
    )  # fmt: skip


def _summary(seen: "Preview") -> Group:
    rendered = seen.rendered
    lengths = sorted(len(rendering.token_ids) for rendering in rendered.renderings) or [0]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bright_black")
    table.add_column()
    dataset = seen.dataset
    examples = f"{len(rendered.renderings):,} of {len(dataset.examples):,} rendered"
    table.add_row("data", Text(f"{dataset.format} · {dataset.task}"))
    table.add_row("examples", examples)
    table.add_row("trained", Text(rendered.share()))
    middle = lengths[len(lengths) // 2]
    table.add_row("length", f"{lengths[0]:,} to {lengths[-1]:,} tokens, median {middle:,}")
    stop = seen.template.tokenizer.convert_ids_to_tokens(seen.template.stop_id)
    table.add_row("answers end with", Text(str(stop)))
    return Group(Padding(table, (0, 0, 0, 2)))
