"""docs/models.md says what the code does."""

import re
import shlex
from pathlib import Path

from kilotune.exports import FORMS
from kilotune.models.qwen import CONVERT

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_documented_command_is_the_one_that_the_error_gives() -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("$ python -c ")]
    assert shlex.split(line)[1:] == ["python", "-c", CONVERT, "FOLDER"]


def test_every_form_of_export_is_described() -> None:
    described = re.findall(r"^\| `([a-z][a-z-]+)` \|", PAGE, flags=re.MULTILINE)
    assert described == list(FORMS)
