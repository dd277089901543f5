"""The page of findings against the source: every code that can be emitted, and no other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import kilotune
from kilotune.data.finding import SEVERITIES

SOURCE = Path(kilotune.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "findings.md"


def constant(node: ast.expr) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def emitted(tree: ast.AST) -> Iterator[str]:
    """What is given to Finding and about_rows, and the keys of tables of (severity, what, fix)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            code = constant(node.args[0])
            if name in {"Finding", "about_rows"} and isinstance(code, str):
                yield code
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                parts = value.elts if isinstance(value, ast.Tuple) else []
                parts = value.args if isinstance(value, ast.Call) else parts
                if key and len(parts) == 3 and constant(parts[0]) in SEVERITIES:
                    yield str(constant(key))


def test_every_code_is_collected_however_it_is_written() -> None:
    source = (
        'Finding("one", "note", (), "", "")\nfinding.about_rows("two", s, rows, w, f)\n'
        'KINDS = {"three": ("error", what, fix), "four": Kind("note", what, fix), "five": (1, 2)}\n'
        "Finding(code, severity, rows, message, fix)\n"
    )
    assert set(emitted(ast.parse(source))) == {"one", "two", "three", "four"}


def test_the_page_names_every_code_and_no_other() -> None:
    codes = {
        code
        for path in SOURCE.rglob("*.py")
        for code in emitted(ast.parse(path.read_text(encoding="utf-8")))
    }
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    listed = [row.split("|")[1].strip().strip("`") for row in rows]
    assert sorted(listed) == sorted(codes)
    # Of each: severity, why, and what to do.
    escaped = [row.replace("\\|", "") for row in rows]
    assert [row for row in escaped if row.count("|") != 5 or "||" in row] == []
