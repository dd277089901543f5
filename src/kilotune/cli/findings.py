"""Findings on the terminal, in the same form wherever they come from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.console import Console
from rich.text import Text

from kilotune.cli.terminal import out, put
from kilotune.data.finding import SEVERITIES, Finding

# Rows of a finding that are quoted, and that a sentence lists.
QUOTED_ROWS, LISTED = 3, 5
NO_TEXTS: Mapping[str, str] = MappingProxyType({})
STYLES = {"error": "bold red", "warning": "yellow", "note": "blue"}


def print_each(
    findings: Sequence[Finding], console: Console, texts: Mapping[str, str] = NO_TEXTS
) -> None:
    """Every finding with its rows, how their `texts` begin, and what to do about it."""
    for finding in findings:
        severity = Text(f"{finding.severity:<8}", STYLES[finding.severity])
        said = Text.assemble((finding.code, "bold"), f" {finding.message}")
        put(console, said, lead=severity)
        put(console, f"{finding.fix}.", lead=" " * len(severity), style="dim")
        for row in [row for row in finding.rows if row in (texts or {})][:QUOTED_ROWS]:
            put(
                console,
                f"{row}  {(texts or {})[row]}",
                lead=" " * len(severity),
                style="dim italic",
            )


def print_findings(findings: Sequence[Finding], texts: Mapping[str, str] = NO_TEXTS) -> None:
    """Every finding, how many there are, and where all of their rows are listed."""
    print_each(findings, out, texts)
    counts = Counter(finding.severity for finding in findings)
    said = [f"{counts[name]} {name}{'s' * (counts[name] > 1)}" for name in SEVERITIES]
    named = [text for text, name in zip(said, SEVERITIES, strict=True) if counts[name]]
    if named:
        out.print(f"\nFindings: {', '.join(named)}")
        if any(len(finding.rows) > LISTED for finding in findings):
            out.print("All rows of each finding: the same command with --json")
    else:
        out.print("Nothing wrong found.", style="green")
