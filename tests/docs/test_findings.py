"""The page of findings against the catalogue, and the catalogue against the source."""

import ast
from pathlib import Path

import kilotune
from kilotune.messages.sentences import kinds

SOURCE = Path(kilotune.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def page_rows() -> dict[str, str]:
    """The rows of the page's tables, by code."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def test_the_page_names_every_code_and_no_other() -> None:
    rows = page_rows()
    assert sorted(rows) == sorted(kinds())
    # Of each: severity, why, and what to do.
    escaped = [row.replace("\\|", "") for row in rows.values()]
    assert [row for row in escaped if row.count("|") != 5 or "||" in row] == []


def test_the_page_gives_the_severity_that_each_has() -> None:
    for code, row in page_rows().items():
        assert kinds()[code].severity in row.split("|")[2], code


def test_every_code_is_given_by_the_source() -> None:
    texts = {
        node.value
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    outlier = {"long-outlier", "short-outlier"}  # of the side that is beyond
    assert set(kinds()) - texts == outlier
