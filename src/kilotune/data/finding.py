"""What checks find: a code, how bad it is, which rows, and the values that its sentence names."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from kilotune.errors import KilotuneError
from kilotune.messages.sentences import fill, kind_of

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `rows` are example ids; an error stops a run, the rest is said.

    Its sentences are those of its code, with the `values`; a `text` or `fix` among them comes
    before the code's own.
    """

    code: str
    severity: Severity
    rows: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """What is wrong, and in which rows. Raises ValueError where a value of it is missing."""
        if "text" in self.values:
            return str(self.values["text"])
        named = self.values.get("named", list(self.rows))
        values = {**self.values, "rows": list(self.rows), "count": len(self.rows), "named": named}
        what = kind_of(self.code).what
        if self.values.get("detail"):
            what += ": {detail}"
        if self.rows and "{count" not in what and "{rows" not in what:
            what += " ({count}): {named}"
        file = f"{self.values['file']}: " if "file" in self.values else ""
        return file + fill(what, values)

    @property
    def fix(self) -> str:
        """What to do about it. Raises ValueError where a value of it is missing."""
        return str(self.values.get("fix") or fill(kind_of(self.code).fix, self.values))

    def __str__(self) -> str:
        return f"{self.message}. {self.fix}"

    def with_sentences(self) -> dict[str, Any]:
        """Its fields, with what is wrong and what to do in words."""
        return {**asdict(self), "message": self.message, "fix": self.fix}


def finding(
    code: str,
    rows: Iterable[str] = (),
    detail: str | list[str] = "",
    severity: Severity | None = None,
    **values: Any,
) -> Finding:
    """The finding of `code`, of the severity that such findings have where none is given."""
    own = cast(Severity, kind_of(code).severity)
    if detail:
        values["detail"] = detail
    return Finding(code, severity or own, tuple(rows), values)


def about_rows(code: str, rows: Sequence[str], **values: Any) -> list[Finding]:
    """One finding on all of `rows`; none without rows."""
    return [finding(code, rows, **values)] if rows else []


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
