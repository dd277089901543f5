"""The HTML page of a run."""

from importlib.resources import files
from pathlib import Path

import jinja2
import plotly

from kilotune.data.files.writers import write_atomically
from kilotune.evaluation.health import FAULTS
from kilotune.messages.sentences import say
from kilotune.reports.figures import loss_figure, systems_figure
from kilotune.reports.view import read_run
from kilotune.runs import record
from kilotune.runs.record import RunFolder

CONFIG = {"responsive": True, "displayModeBar": False}


def build_report(folder: RunFolder) -> Path:
    """Write `report.html`, which needs no other file and no network. Returns its path."""
    view = read_run(folder)
    charts = {
        # A name of its own in place of a random one: the same records are the same bytes.
        name: figure.to_html(
            full_html=False, include_plotlyjs=False, config=CONFIG, div_id=f"chart-{name}"
        )
        for name, figure in (("systems", systems_figure(view)), ("loss", loss_figure(view)))
    }
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["say"] = say
    page = templates.get_template("run.html.j2").render(
        view=view, charts=charts, plotly_js=plotly.offline.get_plotlyjs(), faults=FAULTS
    )
    write_atomically(folder / record.REPORT, page)
    return folder / record.REPORT


def _template(name: str) -> str:
    return (files("kilotune.reports") / "templates" / name).read_text(encoding="utf-8")
