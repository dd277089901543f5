"""Findings on the terminal, in the same form wherever they come from."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from kilotune.cli.terminal import out, put
from kilotune.data.finding import SEVERITIES, Finding

STYLES = {"error": "bold red", "warning": "yellow", "note": "blue"}


def print_each(findings: Sequence[Finding], console: Console) -> None:
    """Every finding with its rows and what to do about it."""
    for finding in findings:
        severity = Text(f"{finding.severity:<8}", STYLES[finding.severity])
        said = Text.assemble((finding.code, "bold"), f" {finding.message}")
        put(console, said, lead=severity)
        put(console, f"{finding.fix}.", lead=" " * len(severity), style="dim")


def print_findings(findings: Sequence[Finding]) -> None:
    """Every finding, and how many there are."""
    print_each(findings, out)
    counts = Counter(finding.severity for finding in findings)
    said = [f"{counts[name]} {name}{'s' * (counts[name] > 1)}" for name in SEVERITIES]
    named = [text for text, name in zip(said, SEVERITIES, strict=True) if counts[name]]
    if named:
        out.print(f"\nFindings: {', '.join(named)}")
    else:
        out.print("Nothing wrong found.", style="green")
