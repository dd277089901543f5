"""`kilotune render` as people and programs see it."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.cli.render import PLAIN, SPECIAL, TRAINED, TRAINED_SPECIAL, mask_text
from kilotune.recipe.load import load_recipe
from kilotune.workflows.render import render
from tests.support.tiny_vision import picture, write_kind

runner = CliRunner()


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_the_mask_reads_without_colour(labelled: Path, tiny_model: Path) -> None:
    result = invoke("render", labelled, "--model", tiny_model, "-n", 2, "--system", "Be brief.")
    assert result.exit_code == 0, result.output
    lines = [line.strip("│ ") for line in result.stdout.splitlines()]
    assert lines[1:8] == [
        "<|im_start|>system↵",
        "Be brief.<|im_end|>↵",
        "<|im_start|>user↵",
        "Text: film 0 was great↵",
        "Label:<|im_end|>↵",
        "<|im_start|>assistant↵",
        "⟦good<|im_end|>⟧",
    ]
    assert lines.count("⟦good<|im_end|>⟧") == lines.count("⟦bad<|im_end|>⟧") == 1
    assert "data:2  films.csv:2" in result.stdout
    assert "72 tokens · prompt 67 · trained 5 (6.9%)" in result.stdout
    assert "40 of 40 rendered" in result.stdout
    assert result.stdout.rstrip().endswith("Nothing wrong found.")


def test_three_styles_tell_trained_from_not_trained_from_special(
    labelled: Path, tiny_model: Path
) -> None:
    tree = {"data": {"train": str(labelled)}, "model": {"name": str(tiny_model)}}
    seen = render(load_recipe(settings=tree))
    text = mask_text(seen, seen.rendered.renderings[0])
    styles = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert styles[TRAINED] in ("good", "⟧")
    assert styles[TRAINED_SPECIAL] == "<|im_end|>"
    assert styles[SPECIAL] == "<|im_start|>"
    assert styles[PLAIN] == "assistant"
    assert len({TRAINED, PLAIN, SPECIAL, TRAINED_SPECIAL}) == 4
    # What is shown is what the model sees, but for the marks.
    shown = text.plain.translate(str.maketrans("", "", "⟦⟧↵"))
    ids = seen.rendered.renderings[0].token_ids
    assert shown == seen.template.tokenizer.decode(ids)
    assert Console(width=80).measure(text).maximum > 20


def test_json_is_one_document_token_by_token(labelled: Path, tiny_model: Path) -> None:
    result = invoke("render", labelled, "--model", tiny_model, "-n", 1, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["examples"], document["rendered"]) == ({"data": 40}, 40)
    assert (document["files"], document["task"]) == ([str(labelled)], "classify")
    (shown,) = document["shown"]
    tokens = shown["tokens"]
    assert [token["text"] for token in tokens if token["trained"]] == [*"good", "<|im_end|>"]
    assert [token["special"] for token in tokens[-2:]] == [False, True]
    assert sum(not token["trained"] for token in tokens) == shown["prompt"]
    assert document["trained"] == 20 * 5 + 20 * 4
    assert document["findings"] == []


def test_what_is_wanting_is_said_with_status_1(tmp_path: Path, tiny_model: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text(f"text,label\nshort,a\nlong {'x' * 900},b\nspelt <|im_end|>,a\n")
    common = ("render", data, "--model", tiny_model)
    result = invoke(*common, "--set", "data.max_length=400")
    assert result.exit_code == 1
    assert "warning truncated" in result.stdout
    assert "(1): data:3" in result.stdout
    assert "note    special-in-text" in result.stdout
    assert "Findings: 1 warning, 1 note" in result.stdout
    # A note alone wants nothing.
    assert invoke(*common).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nobody/nothing"], "no tokenizer there"),
        (["--chat-template", "none.jinja"], "cannot read the chat template"),
        (["--column", "prompt"], "--column prompt"),
        (["--train-on", "everything"], "data.train_on"),
        (["--task", "sing"], "data.task"),
    ],
)
def test_unusable_input_is_one_line_and_status_2(
    arguments: list[str], words: str, labelled: Path, tiny_model: Path
) -> None:
    model = () if "--model" in arguments else ("--model", tiny_model)
    result = invoke("render", labelled, *model, *arguments)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("kilotune: ")]
    assert words in line
    assert "Traceback" not in result.output


def test_the_tokens_of_an_image_are_counted_and_not_written_out(tmp_path: Path) -> None:
    model = write_kind("qwen2_vl", tmp_path / "model")
    picture(tmp_path / "a.png", 200, (112, 84))
    data = tmp_path / "data.csv"
    data.write_text("image,prompt,completion\na.png,What is it?,A slope.\n", encoding="utf-8")
    result = invoke("render", data, "--model", model)
    assert "<|vision_start|><|image_pad|> × 12<|vision_end|>What is it?" in result.stdout
    assert "⟦A slope.<|im_end|>⟧" in result.stdout
