"""What a run would refuse is refused by plan, resume and ablate too, in the same words."""

import json
import re
from pathlib import Path

import pytest

import kilotune
from kilotune.errors import KilotuneError
from kilotune.recipe.load import load_recipe
from kilotune.runs.record import RunFolder
from tests.support.tiny import labelled_csv
from tests.support.tiny_vision import picture

USUAL = ["model.precision=float32", "data.system=", "data.question={text}", "tune.epochs=1"]


def answers(folder: Path) -> Path:
    file = folder / "answers.jsonl"
    rows = [{"prompt": f"What is {n}?", "completion": f"It is the number {n}."} for n in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def pictures(folder: Path) -> Path:
    file = folder / "pictures.jsonl"
    rows = [
        {"image": picture(folder / f"{n}.png", n).name, "text": "Odd?", "label": "yn"[n % 2]}
        for n in range(40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def films(folder: Path) -> Path:
    return labelled_csv(folder / "films.csv", 40)


# How many rows, and which.
ROWS = re.compile(r" \(\d+(: [^()]*\)|\): data:[^.]*)")


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        (films, ["tune.report_to=[nowhere]"]),
        (films, ["judge.model=nowhere"]),
        (films, ["model.name=./nowhere"]),
        (films, ["judge.encoder=./nowhere"]),
        (films, ["model.name=some/model"]),
        (answers, ["judge.model=nowhere"]),
        (films, ["decoding.max_new_tokens=1000000"]),
        (films, ["tune.layers=top:99"]),
        (films, ["tune.rank=64"]),
        (films, ["model.quantization=nf4", "tune.method=full"]),
        (films, ["unlabeled.file=/nowhere.csv"]),
        (films, ["unlabeled.file=films.csv", "unlabeled.seeds=[1,1]"]),
        (films, ["data.max_length=2000", "data.question={text}" + " and more" * 300]),
        (pictures, []),
    ],
    ids=lambda given: given[0][:30] if isinstance(given, list) and given else "",
)
def test_it_is_the_same_refusal(
    data: object, settings: list[str], tmp_path: Path, tiny_model: Path
) -> None:
    file = data(tmp_path)  # type: ignore[operator]
    recipe = load_recipe(
        settings={"data": {"train": str(file)}, "model": {"name": str(tiny_model)}},
        overrides=[*USUAL, *settings],
    )
    begun = RunFolder(tmp_path / "begun")
    begun.path.mkdir()
    begun.write_recipe(recipe)
    said = set()
    for refuse in (
        lambda: kilotune.run(recipe, tmp_path / "run"),
        lambda: kilotune.plan(recipe),
        lambda: kilotune.resume(begun.path),
        lambda: kilotune.ablate(recipe, tmp_path / "ablation"),
    ):
        with pytest.raises(KilotuneError) as caught:
            refuse()
        # An ablation has no validation part: other rows are counted.
        errors = getattr(caught.value, "findings", [caught.value])
        said.add(frozenset(ROWS.sub("", str(each)) for each in errors))
    assert len(said) == 1, said
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "adapter").exists()
