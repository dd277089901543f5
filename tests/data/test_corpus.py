"""`kilotune check` against files as people have them: each fault is found, and nothing else."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from tests.data.corpus import Case, broken, clean, faulty

CLEAN, FAULTY, BROKEN = clean(), faulty(), broken()


def checked(case: Case, folder: Path) -> tuple[int, set[str]]:
    result = CliRunner().invoke(app, [*case.arguments(folder), "--json"])
    assert result.exit_code in {0, 1}, result.output
    return result.exit_code, {finding["code"] for finding in json.loads(result.stdout)["findings"]}


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len({case.file for case in FAULTY}) == len(FAULTY) >= 60
    assert len({case.file for case in CLEAN}) == len(CLEAN) >= 20


@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.file)
def test_a_faulty_file_has_its_finding_and_no_other(case: Case, tmp_path: Path) -> None:
    _, found = checked(case, tmp_path)
    assert found == case.codes


@pytest.mark.parametrize("case", CLEAN, ids=lambda case: case.file)
def test_a_clean_file_has_none(case: Case, tmp_path: Path) -> None:
    assert checked(case, tmp_path) == (0, set())


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.file)
def test_a_broken_file_is_one_clear_error(case: Case, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*case.arguments(tmp_path), "--json"])
    assert result.exit_code == 2
    assert case.refused in result.output
    assert case.file in result.output
