"""`kilotune plan`: what a run would take."""

from typing import TYPE_CHECKING, Annotated

from kilotune.cli import options
from kilotune.cli.data_options import RENDERED, DataOptions
from kilotune.cli.option_groups import Only
from kilotune.cli.tables import new_table
from kilotune.cli.terminal import TerminalProgress, command, out, print_json, put

if TYPE_CHECKING:
    from kilotune.workflows.plan import Plan

WAYS = {
    "padded": "padded, plain",
    "shared": "packed, prefix once",
    "cached": "and cached states",
    "streamed": "and layers streamed",
}


def plan(
    source: options.Source,
    *,
    data: Annotated[DataOptions, Only(*RENDERED, "val", "test")],
    as_json: options.Json = False,
) -> None:
    """Say what a run would take: parameters, memory and time, here and on accelerators."""
    with command(as_json):
        recipe = data.recipe(source)

        from kilotune.workflows.plan import plan as make_plan

        made = make_plan(recipe, TerminalProgress())
        if as_json:
            print_json(made)
        else:
            show(made)


def show(plan: "Plan") -> None:
    """The plan for a person: sizes, then a line a way, then a line an accelerator."""
    _show_sizes(plan)
    _show_ways(plan)
    _show_accelerators(plan)
    out.print(
        "Parameters are exact; memory and time are estimates, of training to its last epoch.\n"
        "How far off they were: docs/plan.md",
        markup=False,
    )


def _show_sizes(plan: "Plan") -> None:
    from kilotune.models.tree import tree_lines

    size, part, work = plan.size, plan.trained, plan.work
    how = "" if work.counted else " (estimated: no tokenizer there)"
    vision = f", {size.vision:,} of them vision" if size.vision else ""
    images = [f"Images: {work.images:,} of {work.image_tokens:,} tokens"] * bool(work.image_tokens)
    lines = [
        f"{plan.model} ({size.architecture}): {size.parameters:,} parameters{vision}; "
        f"{size.layers} layers of {size.layer_parameters:,}",
        f"Trained: {part.parameters:,} ({part.parameters / size.parameters:.2%}) "
        f"in {part.layers} layers, from layer {part.lowest} up",
        f"Data: {work.train} training, {work.validation} validation, {work.test} test examples "
        f"of {work.length:.0f} tokens, {work.shared} of them shared{how}",
        *images,
        f"{plan.steps} steps; hidden-state cache: "
        + (_bytes(plan.cache_bytes) if plan.cache_bytes else "none, all layers are trained"),
        f"This machine in {plan.precision}, {plan.threads} threads: "
        f"{plan.speed.products / 1e9:.0f} GFLOP/s in matrix products, "
        f"{_bytes(plan.free_bytes)} to use",
    ]
    lines += [f"Not counted: {what}" for what in plan.uncounted]
    for line in [*lines, *tree_lines(part.tree)]:
        put(out, line)


def _show_ways(plan: "Plan") -> None:
    figures = ("at once", "GFLOP/step", "s/step", "training", "memory", "fits")
    table = new_table("way", right=figures, title="This machine", no_wrap=True)
    for way in plan.ways:
        table.add_row(
            WAYS[way.name], str(way.micro_batch), f"{way.step / 1e9:,.0f}",
            f"{way.step_seconds:.3g}", _time(way.training_seconds),
            _bytes(way.memory.total), "yes" if way.fits else "no",
        )  # fmt: skip
    out.print(table)
    out.print(f"Generating to validate and judge: {_time(plan.judging_seconds)} more")
    if plan.streamed_reads:
        out.print(f"Streamed, its last answers read {_bytes(plan.streamed_reads)} from disk")


def _show_accelerators(plan: "Plan") -> None:
    title = "Accelerators, in bfloat16 at half their published peak: from sizes alone"
    figures = ("at once", "peak memory", "whole run")
    table = new_table("card", "way", right=figures, title=title, no_wrap=True)
    for fit in plan.accelerators:
        if fit.way is None or fit.seconds is None:
            table.add_row(fit.name, "does not fit", "", f"{_bytes(fit.needed)} needed", "")
            continue
        table.add_row(
            fit.name, WAYS[fit.way.name], str(fit.way.micro_batch), _bytes(fit.needed),
            _time(fit.seconds),
        )  # fmt: skip
    out.print(table)


def _bytes(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _time(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 60:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.0f} s" if seconds >= 1 else "under 1 s"
