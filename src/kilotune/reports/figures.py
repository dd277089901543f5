"""The page's charts."""

import plotly.graph_objects as go

from kilotune.evaluation.evidence import Figure
from kilotune.evaluation.task_metrics import TASKS, TITLES
from kilotune.reports.view import RunView

INK, TRAIN, VALIDATION, GRADED = "#1f2933", "#8aa1b5", "#c2410c", "#0f766e"


def systems_figure(view: RunView) -> go.Figure:
    """The task's two figures of every system, with their 95% intervals."""
    figure = go.Figure()
    for title, color in zip(view.systems[0].figures, (VALIDATION, GRADED), strict=True):
        rows = [(s.title, s.figures[title]) for s in view.systems]
        # Of too few examples there is no figure to draw.
        known = [(name, found) for name, found in rows if isinstance(found, Figure)]
        figure.add_scatter(
            x=[found.value for _, found in known],
            y=[name for name, _ in known],
            name=title,
            mode="markers",
            orientation="h",
            marker={"size": 10, "color": color},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [found.high - found.value for _, found in known],
                "arrayminus": [found.value - found.low for _, found in known],
            },
        )
    figure.update_xaxes(range=[0, 1.02], title="on the held-out test, with 95% intervals")
    figure.update_yaxes(autorange="reversed")  # in the order of the table
    # Side by side, or the intervals of a system would lie on each other.
    figure.update_layout(scattermode="group", scattergap=0.6)
    return _styled(figure, height=300)


def loss_figure(view: RunView) -> go.Figure:
    """Training loss by step, validation loss and the generated graded figure by evaluation."""
    graded = TASKS[view.task].graded
    figure = go.Figure()
    steps = [line for line in view.metrics if "loss" in line]
    checks = [line for line in view.metrics if "eval_loss" in line]
    for name, color, lines, key, axis in (
        ("training loss", TRAIN, steps, "loss", "y"),
        ("validation loss", VALIDATION, checks, "eval_loss", "y"),
        (f"validation {TITLES[graded]} (generated)", GRADED, checks, f"eval_{graded}", "y2"),
    ):
        known = [line for line in lines if key in line]  # a streamed run generates at its end only
        figure.add_scatter(
            x=[line["step"] for line in known],
            y=[line[key] for line in known],
            name=name,
            yaxis=axis,
            mode="lines" if lines is steps else "lines+markers",
            line={"color": color},
        )
    figure.update_layout(
        yaxis={"title": "loss", "rangemode": "tozero"},
        yaxis2={
            "title": TITLES[graded],
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.02],
            "dtick": 0.2,
            "showgrid": False,
        },
        xaxis={"title": "step"},
    )
    return _styled(figure, height=340)


def _styled(figure: go.Figure, height: int) -> go.Figure:
    return figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 10, "t": 40, "b": 10},
        font={"family": "system-ui, sans-serif", "color": INK},
        legend={"orientation": "h", "y": 1.15, "x": 0},
    )
