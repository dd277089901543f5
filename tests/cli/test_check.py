import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from kilotune.cli.main import app
from tests.support.made import sentences

runner = CliRunner()


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, ["check", *map(str, arguments)])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """60 rows of two labels with nothing wrong."""
    lines = [f'"{text}",{("yes", "no")[i % 2]}' for i, text in enumerate(sentences(60))]
    path = tmp_path / "clean.csv"
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def test_a_clean_file_is_described_with_status_0(clean: Path) -> None:
    result = invoke(clean)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == ["detected: text and label columns; task: classify", "60 examples"]
    assert "Nothing wrong found." in lines
    assert [line.split() for line in lines if line.startswith((" yes", " no"))] == [
        ["yes", "30", "50%"],
        ["no", "30", "50%"],
    ]
    assert lines[-1].startswith("Tokens of a prompt: ")
    assert lines[-1].endswith("estimated without a tokenizer")


def test_findings_are_printed_with_code_rows_and_fix(clean: Path) -> None:
    rows = clean.read_text().splitlines()
    clean.write_text("\n".join([*rows, rows[1], ",yes"]) + "\n")
    result = invoke(clean)
    assert result.exit_code == 1
    assert "error   empty-text rows without text (1): data:63" in result.stdout
    assert "        Fill in the text or remove the rows." in result.stdout
    assert "warning duplicate rows that repeat another (1): data:62" in result.stdout
    assert result.stdout.index("empty-text") < result.stdout.index("duplicate")


def test_brackets_in_data_are_no_markup(clean: Path) -> None:
    clean.write_text(clean.read_text().replace(",yes", ",[bold]"))
    assert "[bold]" in invoke(clean).stdout


def test_notes_alone_are_status_0(clean: Path) -> None:
    clean.write_text(clean.read_text() + f'"{"endless words " * 300}",yes\n')
    result = invoke(clean, "--json")
    document = json.loads(result.stdout)
    assert [(f["code"], f["severity"]) for f in document["findings"]] == [("long-outlier", "note")]
    assert result.exit_code == 0


def test_json_is_one_document_with_all_that_is_known(clean: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.csv"
    test.write_text("text,label\n" + clean.read_text().splitlines()[1].upper() + "\n")
    result = invoke(clean, "--test", test, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["files"] == [str(clean)]
    assert (document["status"], document["task"], document["format"]) == (
        1, "classify", "text-label",
    )  # fmt: skip
    assert document["examples"] == {"data": 60, "test": 1}
    assert document["classes"] == {"yes": 30, "no": 30}
    assert document["prompt_tokens"]["estimated"] is True
    by_code = {finding["code"]: finding["rows"] for finding in document["findings"]}
    assert by_code == {"leakage": ["test:2"], "unseen-label": ["test:2"]}
    (leak,) = (finding for finding in document["findings"] if finding["code"] == "leakage")
    assert leak["message"] == "test texts that the training file has too (1): test:2"
    assert leak["fix"].startswith("Remove them from one of the two")
    assert leak["values"] == {"part": "test", "source": "training"}


def test_a_tokenizer_counts_and_nothing_else_imports_torch(clean: Path, tiny_model: Path) -> None:
    result = invoke(clean, "--tokenizer", tiny_model, "--json")
    lengths = json.loads(result.stdout)["prompt_tokens"]
    # Every byte is a token of the tiny model's.
    texts = sorted(len(text) for text in sentences(60))
    assert (lengths["least"], lengths["most"]) == (texts[0], texts[-1])
    assert lengths["estimated"] is False
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom kilotune.cli.main import app\n"
        "assert CliRunner().invoke(app, ['check', sys.argv[1], '--label-errors']).exit_code == 0\n"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(clean)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--task", "sort"],
            "data.task: must be auto, classify, generate, extract or chat, not 'sort'",
        ),
        (["--column", "text"], "cannot read --column text"),
        (["--test", "none.csv"], "none.csv: no such file"),
        (["--out-of-fold", "none.csv"], "none.csv: no such file"),
    ],
)
def test_unusable_options_are_status_2(clean: Path, arguments: list[str], words: str) -> None:
    result = invoke(clean, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_rows_that_cannot_be_read_are_a_finding_and_the_others_are_checked(tmp_path: Path) -> None:
    rows = [json.dumps({"text": t, "label": "ab"[i % 2]}) for i, t in enumerate(sentences(40))]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(["{broken", *rows, rows[0], "[2]"]))
    document = json.loads((result := invoke(path, "--json")).stdout)
    assert result.exit_code == 1
    assert {f["code"]: f["rows"] for f in document["findings"]} == {
        "unreadable-row": ["data:1", "data:43"], "duplicate": ["data:42"],
    }  # fmt: skip
    assert document["examples"] == {"data": 41}
    stopped = runner.invoke(app, ["run", str(path)])
    assert stopped.exit_code == 2
    assert "rows that cannot be read (2): data:1" in stopped.stderr


def test_fix_leaves_out_what_cannot_be_read_and_keeps_its_text(clean: Path, tmp_path: Path) -> None:
    clean.write_text(clean.read_text() + 'one,two,three\n"half open,yes\n')
    out = tmp_path / "repaired.csv"
    result = invoke(clean, "--fix", out)
    assert result.exit_code == 0, result.output
    log = [json.loads(line) for line in Path(f"{out}.changes.jsonl").read_text().splitlines()]
    assert [(change["row"], change["code"], change["before"]) for change in log] == [
        ("data:62", "unreadable-row", "one,two,three"),
        ("data:63", "unreadable-row", '"half open,yes'),
    ]
    assert len(out.read_text().splitlines()) == 61


def test_a_file_that_is_all_unreadable_is_status_2(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\ntwo\n")
    assert invoke(path).exit_code == 2


def test_out_is_looked_at_before_anything_else(clean: Path) -> None:
    result = invoke(clean, "--fix", clean)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "left as it is" in result.stderr


def test_wrong_labels_are_not_looked_for_where_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "faq.jsonl"
    rows = [{"prompt": f"what is {i}", "completion": f"It is number {i}."} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = invoke(path, "--label-errors")
    assert result.exit_code == 2
    assert "the task is generate" in result.stderr


def test_columns_that_are_not_read_are_said(clean: Path) -> None:
    header, *rows = clean.read_text().splitlines()
    clean.write_text("\n".join([f"{header},source", *(f"{row},{n}" for n, row in enumerate(rows))]))
    assert "columns that are not read: source" in invoke(clean).stdout


def test_what_a_run_would_refuse_of_a_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"t{i},a\n" for i in range(12)))
    (tmp_path / "r.yaml").write_text("data: {train: a.csv, question: 'Please: {txt}'}\n")
    result = runner.invoke(app, ["check", str(tmp_path / "r.yaml")])
    assert result.exit_code == 2
    assert "the question has no {text}" in result.stderr


def test_a_repaired_copy_leads_to_pictures_of_another_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "out").mkdir()
    rows = []
    for n in range(12):
        Image.new("RGB", (8, 8), (n, n, n)).save(tmp_path / "photos" / f"{n}.png")
        rows.append(
            {"filename": f"{n}.png", "caption": f"picture number {n}" + "\u0007" * (n == 3)}
        )
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    photos = ("--images", tmp_path / "photos")
    assert "missing-image" in invoke(path).stdout
    assert "missing-image" not in invoke(path, *photos).stdout
    result = invoke(path, *photos, "--fix", tmp_path / "out" / "b.jsonl")
    assert result.exit_code == 0, result.output
    first = json.loads((tmp_path / "out" / "b.jsonl").read_text().splitlines()[0])
    assert first == {"filename": "../photos/0.png", "caption": "picture number 0"}
