"""What checks say: a code, how bad it is, which rows, why, and what to do."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from kilotune.errors import KilotuneError, some

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Kind:
    """What every finding of one code says, and what to do about it."""

    severity: Severity
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `rows` are example ids; an error stops a run, the rest is said."""

    code: str
    severity: Severity
    rows: tuple[str, ...]
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}"


def about_rows(
    code: str, severity: Severity, rows: Sequence[str], what: str, fix: str
) -> list[Finding]:
    """One finding on all of `rows`, counted and named in its message; none without rows."""
    if not rows:
        return []
    message = f"{what} ({len(rows)}): {some(list(rows))}"
    return [Finding(code, severity, tuple(rows), message, fix)]


def errors_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings in order of severity, otherwise as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


class FindingsError(KilotuneError):
    """Findings that stop the work: each keeps its own rows, message and fix."""

    def __init__(self, findings: Sequence[Finding], where: str) -> None:
        fixes = dict.fromkeys(finding.fix for finding in findings)
        what = "; ".join(finding.message for finding in findings)
        super().__init__(what, where=where, fix="; ".join(fixes))
        self.findings = tuple(findings)

    def __str__(self) -> str:
        if len(self.findings) == 1:
            return super().__str__()
        head = f"{self.where}: {len(self.findings)} kinds of errors"
        return "\n".join([head, *(f"  {each.code}: {each}" for each in self.findings)])


def stop_on_errors(findings: Iterable[Finding], where: str) -> None:
    """Raise one FindingsError that holds every finding of severity error."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise FindingsError(errors, where)
