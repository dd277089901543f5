"""The benchmark of systems by labels: its rows, cells and page, with toys for systems."""

import json
import os
import re
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.per_label import cells as cells_module
from benchmarks.per_label.__main__ import options
from benchmarks.per_label.cells import Bench, Cell, Others, Results, judged, measure_all
from benchmarks.per_label.page import (
    best_cell,
    cost_table,
    figure,
    gain,
    grouped,
    over_seeds,
    write_page,
)
from benchmarks.per_label.systems import SYSTEMS, System
from benchmarks.per_label.tasks import FIRST_OF_EACH, TASKS, Row, Rows, Task, address_json, draw
from benchmarks.per_label.worker import Learnt, work
from kilotune.evaluation.metrics import macro_f1

TEST_ROWS = 20
LABELS = ("left", "right", "up")


def toy_rows() -> Iterator[Row]:
    # One label in twenty is "up".
    for number in range(200):
        label = "up" if number % 20 == 7 else LABELS[number % 2]
        yield Row(f"{label} row {number}", label)


# By the names of real ones: the page says titles and order of those.
TOY_TASK = Task("movies", "film reviews", "classify", toy_rows)
TOYS = {
    name: System(name, name, f"tests.benchmarks.toys:{function}")
    for name, function in (("majority", "first"), ("tfidf", "knows"))
}


def bench(**systems: System) -> Bench:
    return Bench({"movies": TOY_TASK}, {**TOYS, **systems}, TEST_ROWS, None)


def row(system: str, seed: int, right: list[int], **more: object) -> dict:
    value = sum(right) / len(right)
    known = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {
        "task": "movies", "size": 50, "seed": seed, "system": system, "kind": "classify",
        "held_out": False, "exact": known, "graded": known, "reported_exact": None,
        "reported_graded": None, "learn_seconds": 1.0, "answer_seconds": 2.0, "peak_bytes": 10**9,
        "beside": 0.0,
        "scores": [float(one) for one in right], "versions": '{"torch": "2"}', "where": "here",
        "measured": "2026-12-01", "note": "", **more,
    }  # fmt: skip


@pytest.mark.parametrize("task", [TOY_TASK, Task("texts", "texts", "generate", toy_rows)])
def test_smaller_sizes_are_part_of_larger_ones_and_no_row_is_tested(task: Task) -> None:
    rows = task.rows()
    drawn = draw(task, rows, seed=1, test_rows=TEST_ROWS)
    again = draw(task, rows, seed=1, test_rows=TEST_ROWS)
    assert drawn == again
    assert len(drawn.test) == TEST_ROWS
    assert len(drawn.pool) == len(rows.train) - TEST_ROWS
    assert set(drawn.train(10)) < set(drawn.train(50)) < set(drawn.train(100))
    assert not {r.text for r in drawn.test} & {r.text for r in drawn.pool}
    other = draw(task, rows, seed=2, test_rows=TEST_ROWS)
    assert set(other.test) != set(drawn.test)
    with pytest.raises(ValueError, match="181 rows are asked for, 180 are there"):
        drawn.train(181)


def test_three_rows_of_each_label_come_first_one_of_each_in_turn() -> None:
    drawn = draw(TOY_TASK, TOY_TASK.rows(), seed=0, test_rows=TEST_ROWS)
    for each in range(1, FIRST_OF_EACH + 1):
        counts = Counter(r.answer for r in drawn.train(each * len(LABELS)))
        assert counts == dict.fromkeys(LABELS, each)


def test_a_text_stands_once_and_one_of_several_labels_not_at_all() -> None:
    def load() -> Iterator[Row]:
        yield from (Row("One two three four", "a"), Row("one  two THREE", "a"))
        yield from (Row("both", "a"), Row("Both", "b"), Row("both", "a"), Row(" ", "a"))

    found = Task("t", "t", "classify", load, words=3).rows()
    assert found == Rows((Row("One two three", "a"),))
    # Of open answers several may be right: the first stands.
    assert Task("t", "t", "generate", load, words=3).rows().train[1] == Row("both", "a")


def test_a_published_test_stays_one() -> None:
    def published() -> Iterator[Row]:
        yield from (Row(f"Left row {number}", "left") for number in range(20, 60, 2))
        yield from (Row(f"new row {number}", "up") for number in range(20))

    task = Task("t", "t", "classify", toy_rows, load_test=published)
    rows = task.rows()
    assert len(rows.test) == 40
    assert len(rows.train) == 200 - 20
    drawn = draw(task, rows, seed=0, test_rows=TEST_ROWS)
    assert set(drawn.test) < set(rows.test)
    assert set(drawn.pool) == set(rows.train)


def test_an_address_becomes_the_json_of_its_parts() -> None:
    tagged = ET.fromstring(
        "<AddressString><AddressNumber>12</AddressNumber> <StreetNamePreDirectional>N"
        "</StreetNamePreDirectional> <StreetName>Oak</StreetName> <StreetNamePostType>St,"
        "</StreetNamePostType> <ZipCode>60601</ZipCode><NotAddress>c/o</NotAddress>"
        "</AddressString>"
    )
    found = json.loads(address_json(tagged))
    assert found == {"number": "12", "street": "N Oak St", "zip": "60601", "other": "c/o"}


def test_cells_are_measured_in_their_own_process_and_kept(tmp_path: Path) -> None:
    results, said = Results(tmp_path / "results.parquet"), list[str]()
    cells = bench().cells(["movies"], [10, 30], [0], ["majority", "tfidf"])
    assert measure_all(bench(), cells, results, said.append) == 0
    assert results.done() == set(cells)
    knows = next(r for r in results.rows() if (r["size"], r["system"]) == (10, "tfidf"))
    assert knows["exact"]["value"] == knows["graded"]["value"] == 1.0
    assert knows["learn_seconds"] == 3.0
    assert knows["right"] == [True] * TEST_ROWS
    assert knows["peak_bytes"] > 10**6
    assert "commit" in json.loads(knows["versions"])
    first = next(r for r in results.rows() if (r["size"], r["system"]) == (30, "majority"))
    assert first["note"].startswith("30 rows, Text: ")
    assert first["reported_exact"] == {"value": 0.9, "low": 0.8, "high": 0.95}
    assert set(first["predictions"]) == {first["predictions"][0]}
    assert [line.split(":")[0] for line in said] == [
        f"[{number}/4] {cell}" for number, cell in enumerate(cells, 1)
    ]


def test_what_is_measured_is_not_measured_again_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked = list[Cell]()

    def measure(self: Bench, cell: Cell, drawn: object) -> dict:
        worked.append(cell)
        if len(worked) == 3:
            raise KeyboardInterrupt
        return row(cell.system, cell.seed, [1, 0], size=cell.size)

    monkeypatch.setattr(Bench, "measure", measure)
    results = Results(tmp_path / "results.parquet")
    cells = bench().cells(["movies"], [10, 30], [0], ["majority", "tfidf"])
    with pytest.raises(KeyboardInterrupt):
        measure_all(bench(), cells, results, lambda line: None)
    assert results.done() == set(cells[:2])
    assert measure_all(bench(), cells, results, lambda line: None) == 0
    assert worked == [*cells[:3], *cells[2:]]
    assert results.done() == set(cells)
    measure_all(bench(), cells[:1], results, lambda line: None, again=True)
    assert worked[5:] == cells[:1]
    assert len(results.rows()) == len(cells)
    assert not list(tmp_path.glob(".*"))


def test_a_cell_that_fails_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    broken = System("zero-shot", "broken", "tests.benchmarks.toys:fails")
    peer = System("trl", "peer", "tests.benchmarks.toys:knows", peer=True)
    several = bench(**{"zero-shot": broken, "trl": peer})
    results, said = Results(tmp_path / "results.parquet"), list[str]()
    cells = several.cells(["movies"], [10], [0], ["zero-shot", "trl", "tfidf"])
    assert measure_all(several, cells, results, said.append) == 2
    assert {cell.system for cell in results.done()} == {"tfidf"}
    assert "no classify today" in said[1]
    assert "make peers" in said[2]


def test_labels_that_are_rarer_than_the_folds_are_learnt(tmp_path: Path) -> None:
    def many() -> Iterator[Row]:
        for number in range(100):
            yield Row(f"word{number % 20} of row {number}", f"label {number % 20}")

    task = Task("movies", "many labels", "classify", many)
    few = Bench({"movies": task}, {"tfidf": SYSTEMS["tfidf"]}, TEST_ROWS, None)
    results, said = Results(tmp_path / "results.parquet"), list[str]()
    assert measure_all(few, [Cell("movies", 50, 0, "tfidf")], results, said.append) == 0, said
    (row,) = results.rows()
    # Each label has a word of its own, and two rows or three.
    assert row["exact"]["value"] > 0.9
    assert row["reported_exact"]["value"] > 0.8


def test_systems_are_asked_what_they_can_do_alone() -> None:
    every = Bench(TASKS, SYSTEMS, TEST_ROWS, sys.executable)
    found = every.cells(TASKS, [50], [0], SYSTEMS)
    assert {c.system for c in found if c.task == "chinese"} == {"majority", "tfidf"}
    assert {"states", "setfit"} & {c.system for c in found if c.task == "addresses"} == set()
    assert {c.system for c in found if c.task == "r8"} == set(SYSTEMS)


def test_figures_are_those_of_the_task_and_answers_are_read_as_kilotune_does() -> None:
    truth = ["good", "good", "bad", "bad", "good", "bad"]
    answers = ["Good.", "good", "good", "the label is bad", "good or bad", "bad"]
    found = judged(TASKS["movies"], ("bad", "good"), truth, {"answers": answers, "reported": {}}, 0)
    read = ["good", "good", "good", "bad", "", "bad"]
    assert found["predictions"] == read
    assert found["unreadable"] == 1
    assert found["exact"]["value"] == pytest.approx(4 / 6)  # type: ignore[index]
    expected = macro_f1(truth, read, ("bad", "good"))
    assert found["graded"]["value"] == pytest.approx(expected)  # type: ignore[index]
    assert found["reported_exact"] is None
    said = {"answers": ['{"a": 1, "b": 2}', "none", *['{"a": 1}'] * 4], "reported": {}}
    found = judged(TASKS["addresses"], (), ['{"a": 1}'] * 6, said, 0)
    assert found["graded"]["value"] == pytest.approx((2 / 3 + 0 + 4) / 6)  # type: ignore[index]
    assert found["predictions"] is None


def test_an_interval_over_seeds_is_the_wider_of_rows_and_seeds() -> None:
    alike = over_seeds([0.8, 0.8, 0.8], [0.02, 0.02, 0.02])
    assert alike.high - alike.value == pytest.approx(1.96 * 0.02 / 3**0.5, rel=1e-3)
    apart = over_seeds([0.7, 0.8, 0.9], [0.02, 0.02, 0.02])
    assert apart.high - apart.value == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-3)
    one = figure([row("tfidf", 0, [1, 1, 0, 0])], "exact")
    assert (one.value, round(one.low, 9), round(one.high, 9)) == (0.5, 0.4, 0.6)


def test_systems_are_compared_on_the_same_rows_of_the_same_seeds() -> None:
    before = [row("tfidf", 0, [1, 0] * 50), row("tfidf", 2, [0] * 100)]
    after = [row("auto", 0, [1, 1] * 50), row("auto", 1, [1] * 100)]
    found = gain(before, after)
    assert found is not None
    assert found.value == 0.5
    assert 0.4 < found.low < 0.41
    assert gain(before[1:], after) is None
    rows = [*before[:1], *after[:1], row("encoder", 0, [1] * 99 + [0])]
    assert best_cell(grouped(rows), "movies", 50) == "**auto** 1.000 (encoder)"


def test_the_page_is_made_of_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path / "per-label.parquet")
    told = {"value": 0.9, "low": 0.85, "high": 0.95}
    for seed, right in ((0, [1, 1, 1, 0]), (1, [1, 1, 0, 0])):
        results.add(full(row("tfidf", seed, right, reported_exact=told, reported_graded=told)))
        results.add(full(row("auto", seed, [1, 1, 1, 1], size=100)))
    monkeypatch.setattr(cells_module, "_rows", None)
    page, picture = write_page(results.rows(), tmp_path / "per-label.md")
    text = page.read_text()
    assert "4 cells are measured" in text
    assert "| film reviews | **tfidf** 0.625 | **auto** 1.000 |" in text
    assert re.search(r"\| TF-IDF \| 0\.625 \[0\.000, 1\.000\] \|  \|", text)
    # 0.75 and 0.5 are both below what it said of itself.
    assert "| TF-IDF | 2 | 0.000 [0.000, 0.658] **too few** |" in text
    assert "+27.5 points" in text
    assert "![film reviews](per-label-movies.svg)" in text
    drawn = ET.parse(picture).getroot()
    assert sum(one.tag.endswith("circle") for one in drawn.iter()) == 2
    first = text, picture.read_bytes()
    write_page(Results(results.path).rows(), page)
    assert (page.read_text(), picture.read_bytes()) == first


def full(known: dict) -> dict:
    return {**known, "unreadable": 0, "right": [], "predictions": None}


def test_held_out_tasks_are_run_where_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert not {"bbc", "friends"} & set(options([]).tasks)
    assert {"bbc", "friends"} < set(options(["--held-out"]).tasks)
    with pytest.raises(SystemExit):
        options(["--tasks", "movies", "bbc"])
    assert "bbc: held out for the end" in capsys.readouterr().err
    assert options(["--held-out", "--tasks", "bbc"]).tasks == ["bbc"]
    assert options(["--quick"]).sizes == [100]
    assert options(["--quick", "--sizes", "50"]).sizes == [50]


def test_seconds_beside_other_programs_are_not_compared() -> None:
    alone, beside = row("auto", 0, [1]), row("auto", 1, [1], beside=1.2, learn_seconds=9.0)
    older = row("tfidf", 0, [1], beside=None, learn_seconds=4.0)
    table = cost_table([alone, beside, older])
    assert "| kilotune `auto` | 1 s | 2 s |" in table
    assert "| TF-IDF | 4 s | 2 s |" in table
    assert "| kilotune `auto` |  |  | 1.00 GB |" in cost_table([beside])


class Times(NamedTuple):
    user: float
    idle: float


def test_others_are_all_but_this_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = iter([Times(10.0, 90.0), Times(40.0, 95.0)])
    own = iter([(1.0, 1.0, 0.0, 0.0, 100.0), (2.0, 1.0, 8.0, 1.0, 120.0)])
    monkeypatch.setattr(cells_module.psutil, "cpu_times", lambda: next(machine))
    monkeypatch.setattr(cells_module.os, "times", lambda: os.times_result(next(own)))
    assert Others().cores() == (40 - 10 - (1 + 8 + 1)) / 20


def test_a_worker_times_learning_and_answering_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 15.0])
    monkeypatch.setattr("benchmarks.per_label.worker.time.perf_counter", lambda: next(clock))
    found = work(lambda job: Learnt(lambda: ["a"]), None)  # type: ignore[arg-type]
    assert (found["learn_seconds"], found["answer_seconds"]) == (2.0, 5.0)
    assert found["answers"] == ["a"]
