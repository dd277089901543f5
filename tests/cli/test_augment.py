"""`kilotune augment`, as a user meets it."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.data.checks.duplicates import check_leakage
from kilotune.data.images.pixels import open_picture
from kilotune.data.normalise import load_examples
from kilotune.runs.trials import Unit
from kilotune.workflows import augmentation_trial
from kilotune.workflows.augmentation_trial import LONGER, WITHOUT, decided
from tests.support.made import sentences
from tests.workflows.test_augmentation_trial import tried

runner = CliRunner()


def invoke(*arguments: str | Path):  # type: ignore[no-untyped-def]
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def films(tmp_path: Path) -> Path:
    path = tmp_path / "films.csv"
    rows = [f"{line},{('good', 'bad')[i % 4 == 0]}" for i, line in enumerate(sentences(60))]
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def test_a_file_is_written_with_origins_and_what_is_held_out_beside_it(
    films: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more.csv"
    result = invoke("augment", films, "--op", "swap", "--op", "delete", "-o", out)
    assert result.exit_code == 0, result.output
    with out.open() as file:
        rows = list(csv.DictReader(file))
    originals = [row for row in rows if not row["operation"]]
    made = [row for row in rows if row["operation"]]
    assert len(originals) == 38
    assert {row["operation"] for row in made} == {"swap", "delete"}
    labels = {f"data:{row['source_row']}": row["label"] for row in originals}
    assert all(labels[row["parent"]] == row["label"] for row in made)
    held = [
        e for part in ("validation", "test") for e in load_examples(tmp_path / f"more.{part}.csv")
    ]
    assert len(held) == 22
    assert check_leakage(held, load_examples(out), "derived") == []
    assert f"held out: {tmp_path / 'more.test.csv'}" in result.stdout
    assert f"kilotune run {out} --val {tmp_path / 'more.validation.csv'} --test" in result.stdout
    assert "swap: asked 38 times" in result.stderr


def test_the_same_command_gives_the_same_bytes(films: Path, tmp_path: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        assert invoke("augment", films, "--op", "swap", "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_one_document_tells_the_counts(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.csv"
    arguments = ("--op", "swap", "--balanced", "-o", out, "--json")
    told = json.loads(invoke("augment", films, *arguments).stdout)
    assert told["counts"]["swap"]["kept"] == len(told["examples"]) == 18
    assert told["originals"] == 38
    assert {row["operation"] for row in told["examples"]} == {"swap"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no operation is named"),
        (("--op", "swop"), "no operation 'swop'"),
        (("--op", "nowhere:nothing"), "cannot import it"),
        (("--op", "swap", "--set", "augment.protect=['(']"), "not a regular expression"),
        (("--op", "back-translation"), "no translator is named"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(
    arguments: tuple[str, ...], words: str, films: Path, tmp_path: Path
) -> None:
    result = invoke("augment", films, "-o", tmp_path / "more.csv", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["films.csv"]


def test_nothing_is_overwritten(films: Path, tmp_path: Path) -> None:
    (tmp_path / "more.test.csv").write_text("mine")
    result = invoke("augment", films, "--op", "swap", "-o", tmp_path / "more.csv")
    assert result.exit_code == 2
    assert "exists and is left as it is" in result.stderr
    assert (tmp_path / "more.test.csv").read_text() == "mine"
    assert not (tmp_path / "more.csv").exists()


def photos(folder: Path) -> Path:
    rows = []
    for index, line in enumerate(sentences(24)):
        shade = (40 + 8 * index, 90, 200 - 4 * index)
        picture = Pillow.linear_gradient("L").resize((40, 30))
        Pillow.merge("RGB", [picture.point(lambda v, s=s: (v + s) // 2) for s in shade]).save(
            folder / f"{index}.png"
        )
        question = [{"type": "text", "text": f"Is it on the left? {line}"},
                    {"type": "image_url", "image_url": {"url": f"{index}.png"}}]  # fmt: skip
        turns = [{"role": "user", "content": question},
                 {"role": "assistant", "content": f"It is number {index}"}]  # fmt: skip
        rows.append(json.dumps({"messages": turns}))
    (folder / "photos.jsonl").write_text("\n".join(rows))
    return folder / "photos.jsonl"


def test_a_preview_shows_images_and_what_is_made_of_them(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ("augment", photos(tmp_path), "--op", "rotate", "--op", "noise", "--preview", sheet)
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    with Pillow.open(sheet) as opened:
        assert opened.size == (3 * 160, 6 * 178)
    assert invoke(*arguments).exit_code == 2  # it is there now


def test_changed_images_are_written_into_the_file(tmp_path: Path) -> None:
    out = tmp_path / "more.jsonl"
    result = invoke("augment", photos(tmp_path), "--op", "brightness", "--op", "flip", "-o", out)
    assert result.exit_code == 0, result.output
    assert "warning: flip: 15 examples speak of left, right, digits or words" in result.stderr
    every = load_examples(out)
    made = [example for example in every if example.images[0].data is not None]
    assert len(every) == 15 + len(made)
    assert len(made) == 30
    assert {open_picture(example.images[0]).size for example in made} == {(40, 30)}


@pytest.mark.parametrize(
    ("swap", "longer", "last"),
    [
        (80, 40, "better than without, in as many steps too: swap"),
        (80, 79, "no operation is better than as many steps without: try more of tune.epochs"),
        (41, 40, "no operation is better than without, in as many steps too"),
    ],
)
def test_a_trial_ends_with_what_has_earned_its_place(
    films: Path, monkeypatch: pytest.MonkeyPatch, swap: int, longer: int, last: str
) -> None:
    right = {WITHOUT: 40, "swap": swap, LONGER: longer}
    units = [Unit(0, seed) for seed in range(3)]
    done = {name: {unit: tried(unit, count) for unit in units} for name, count in right.items()}
    found = decided("classify", done)
    monkeypatch.setattr(augmentation_trial, "run_trial", lambda *given, **named: found)
    command = ("augment", films, "--op", "swap", "--trial", "-o", films.parent / "trial")
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == last
    told = json.loads(invoke(*command, "--json").stdout)
    assert told["earned"] == list(found.earned)
    assert told["beyond"].keys() == {"swap"}
