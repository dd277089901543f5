"""The command line as a user meets it: one clear line, the right exit status, nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kilotune.cli.main import app

runner = CliRunner()


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_help_and_check_load_no_torch(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.csv"
    faulty.write_text("text,label\n,a\nx,b\n")
    commands = (
        ["--help"],
        ["run", "--help"],
        ["check", "none.csv"],
        ["run", "none.csv"],
        ["run", str(faulty)],
        ["render", "none.csv"],
        ["runs", str(tmp_path)],
        ["compare", "a", "b"],
    )
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom kilotune.cli.main import app\n"
        f"for arguments in {commands!r}:\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    assert result.exit_code in (0, 1, 2), result.output\n"
        "    loaded = [m for m in ('torch', 'transformers', 'peft') if m in sys.modules]\n"
        "    assert not loaded, (arguments, loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_answers_in_under_a_second_with_examples_and_exit_statuses() -> None:
    # Processor time of the process alone: whatever else the machine does is not counted.
    code = (
        "import sys, time\nfrom kilotune.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(time.process_time(), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert float(done.stderr) < 1.0
    assert "kilotune check reviews.csv" in done.stdout
    assert "Exit status: 0 done, 1 " in done.stdout


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_has_help_with_examples_and_exit_statuses(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    said = " ".join(result.output.split())
    assert f"Example: kilotune {command} " in said.replace("Examples:", "Example:")
    assert "Exit status: 0 done, " in said
    assert ("1 " in said.split("Exit status")[1]) == (
        command in ("advise", "check", "predict", "render", "verify")
    )


ROWS = "\n".join(f"text {i},{'ab'[i % 2]}" for i in range(20))


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, [], "no such file"),
        ("", [], "empty"),
        ("text,label\n", [], "no rows"),
        (f"body,label\n{ROWS}\n", ["--text", "text"], "no column 'text'; the columns are body"),
        (f"text,kind\n{ROWS}\n", ["--label", "label"], "--column label=NAME"),
        ("text,label\n" + "\n".join(f"t{i},a" for i in range(20)), [], "the same label, 'a'"),
        ("text,label\n" + "\n".join(f"t{i},{'ab'[i % 2]}" for i in range(9)), [], "only 9"),
        (f"text,label\n{ROWS}\n,a\n", [], "rows without text (1): data:22"),
        (f"text,label\n{ROWS}\n", ["--set", "tune.rnak=4"], "tune.rnak"),
        (f"text,label\n{ROWS}\n", ["--preset", "best"], "no preset 'best'"),
        (f"text,label\n{ROWS}\n", ["--model", "no/such"], "not a built-in model"),
        (f"text,label\n{ROWS}\n", ["--test", "none.csv"], "none.csv: no such file"),
        (f"text,label\n{ROWS}\n", ["--test", "data.csv"], "the test file is the training file"),
    ],
)
def test_unusable_input_is_one_line_status_2_and_nothing_written(
    content: str | None, arguments: list[str], words: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("data.csv").write_text(content)
    before = sorted(tmp_path.rglob("*"))
    result = invoke("run", "data.csv", *arguments)
    assert result.exit_code == 2, result.output
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("kilotune: ")]
    assert len(lines) == 1, result.stderr
    assert words in lines[0]
    assert lines[0].replace("? ", ". ").count(". ") >= 1  # what to do follows what is wrong
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_json_errors_are_a_document_too(tmp_path: Path) -> None:
    result = invoke("run", tmp_path / "none.csv", "--json")
    assert result.exit_code == 2
    document = json.loads(result.stdout)
    assert (document["status"], document["error"]["what"]) == (2, "no such file")


@pytest.mark.parametrize("command", ["run", "convert", "plan"])
def test_several_errors_are_said_each_with_its_rows_and_remedy(
    command: str, tmp_path: Path
) -> None:
    path = tmp_path / "chats.jsonl"
    chat = {"messages": [{"role": r, "content": r} for r in ("user", "assistant")]}
    wrong = [{"messages": [{"role": "narrator", "content": "x"}]}, {"messages": "text"}]
    path.write_text("\n".join(map(json.dumps, [chat, *wrong])))
    out = [tmp_path / "out.json"] if command == "convert" else []
    result = invoke(command, path, *out)
    assert result.exit_code == 2
    said = result.stderr[result.stderr.index("kilotune: ") :].splitlines()
    by_code = {line.split(":")[0].strip(): line for line in said[1:]}
    assert said[0].startswith(f"kilotune: {path}: ")
    assert "data:2" in by_code["unknown-role"]
    assert "data:3" in by_code["bad-json-cell"]
    assert by_code["unknown-role"].split(". ")[-1] != by_code["bad-json-cell"].split(". ")[-1]
    document = json.loads(invoke(command, path, *out, "--json").stdout)
    rows = {finding["code"]: finding["rows"] for finding in document["findings"]}
    assert (rows["unknown-role"], rows["bad-json-cell"]) == (["data:2"], ["data:3"])


def test_check_finds_and_says_with_status_1(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(f"text,label\n{ROWS}\ntext 0,b\n")
    result = invoke("check", path, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["examples"] == {"data": 21}
    assert document["classes"] == {"a": 10, "b": 11}
    assert [f["code"] for f in document["findings"]] == ["conflicting-labels"]
    assert "conflicting-labels" in invoke("check", path).stdout
    path.write_text(f"text,label\n{ROWS}\n")
    assert invoke("check", path).exit_code == 0


def test_run_predict_and_report_on_a_tiny_model(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    common = ["--model", tiny_model, "--set", "tune.epochs=1", "--out", out]
    result = invoke("run", labelled, "--text", "text", "--label", "label", *common, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["run"] == str(out)
    assert [system["name"] for system in document["test"]] == [
        "majority", "tfidf", "states", "few_shot", "base", "tuned",
    ]  # fmt: skip
    assert Path(document["report"]).exists()

    again = invoke("run", labelled, *common)
    assert again.exit_code == 2
    assert "exists already" in again.stderr

    labels = tmp_path / "labels.csv"
    result = invoke("predict", out, labelled, "-o", labels)
    assert result.exit_code == 0, result.output
    assert labels.read_text().splitlines()[0] == "text,label,prediction,probability"

    rows = tmp_path / "new.jsonl"
    rows.write_text('{"text": "fine"}\n{"text": ["list"]}\n')
    result = invoke("predict", out, rows, "-o", tmp_path / "new.csv", "--json")
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["not_answered"] == {"file:2": "wrong-type"}
    assert said["status"] == 1
    empty = said["empty"]
    assert empty in (1, 2)  # the row that was not asked, and as the tiny model answers the other
    why = "nothing was asked, or the answer was no label"
    assert f"{empty} of 2 predictions are empty: {why}" in result.stderr
    said_last = result.stderr[result.stderr.index("kilotune: 1 of 2 rows not answered") :]
    assert "error   wrong-type values of another kind" in said_last
    assert "file:2" in said_last
    assert (tmp_path / "new.csv").read_text().splitlines()[2].endswith(",,,wrong-type")

    page = Path(document["report"])
    page.unlink()
    assert invoke("report", out).exit_code == 0
    assert page.exists()


def test_a_run_for_people_ends_with_verdict_table_and_paths(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = invoke(
        "run", labelled, "--model", tiny_model, "--out", out, "--preset", "article",
        "--set", "tune.epochs=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Verdict: underfit" in result.stdout
    again = f"kilotune run {out / 'recipe.yaml'}"
    assert f"    {again} --set tune.learning_rate=auto\n" in result.stdout
    for words in ("commonest label", "TF-IDF", "base model", "tuned model"):
        assert words in result.stdout
    assert str(out / "adapter") in result.stdout
    assert str(out / "report.html") in result.stdout
    assert "validation loss" in result.stderr


def test_ctrl_c_is_status_130_and_says_how_to_go_on(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kilotune.session.fine_tuning.tune", stopped)
    out = tmp_path / "run"
    result = invoke("run", labelled, "--model", tiny_model, "--out", out)
    assert result.exit_code == 130
    assert f"kilotune resume {out}" in result.stderr
    monkeypatch.undo()
    assert invoke("resume", out).exit_code == 0


def test_what_the_system_refuses_is_one_error(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    result = invoke("convert", labelled, tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert f"{tmp_path / 'out.jsonl'}: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {labelled.name}  # no half of a file


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, who may write everywhere.
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    result = invoke("convert", labelled, tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert "no permission to write in the folder" in result.stderr


@pytest.mark.parametrize("command", ["run", "plan", "render"])
def test_labels_in_the_system_message_of_free_text_are_refused(
    command: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("faq.jsonl")
    rows = [{"prompt": f"What is {i}?", "completion": f"It is number {i}."} for i in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    result = invoke(command, path, "--model", tiny_model, "--system", "One of {labels}.")
    assert result.exit_code == 2
    assert "data.system: the system message lists {labels}" in result.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "faq.jsonl"]
