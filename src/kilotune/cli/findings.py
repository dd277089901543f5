"""Findings on the terminal, in the same form wherever they come from."""

from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from kilotune.cli.terminal import out
from kilotune.data.finding import SEVERITIES, Finding

STYLES = {"error": "bold red", "warning": "yellow", "note": "blue"}


def print_findings(findings: Sequence[Finding]) -> None:
    """Every finding with its rows and what to do about it, and how many there are."""
    for finding in findings:
        severity = (f"{finding.severity:<8}", STYLES[finding.severity])
        line = Text.assemble(severity, (finding.code, "bold"), f" {finding.message}")
        out.print(line, soft_wrap=True)
        out.print(f"        {finding.fix}.", style="dim", markup=False, soft_wrap=True)
    counts = Counter(finding.severity for finding in findings)
    said = [f"{counts[name]} {name}{'s' * (counts[name] > 1)}" for name in SEVERITIES]
    named = [text for text, name in zip(said, SEVERITIES, strict=True) if counts[name]]
    if named:
        out.print(f"\nFindings: {', '.join(named)}")
    else:
        out.print("Nothing wrong found.", style="green")
