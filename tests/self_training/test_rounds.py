"""Self-training on folds: what is tuned on what, and what is kept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import kilotune
from kilotune.data.example import Example
from kilotune.data.folds import Fold, make_folds
from kilotune.errors import KilotuneError
from kilotune.evaluation.adoption import Adoption, Trials
from kilotune.evaluation.confidence import Guess, Trust
from kilotune.evaluation.evidence import Figure
from kilotune.models.source import source_at
from kilotune.preparation.prepare import prepare
from kilotune.progress import Silent
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.runs import record
from kilotune.runs.cost import Cost
from kilotune.runs.record import RunFolder
from kilotune.runs.stage_store import Stage, StageStore, Told
from kilotune.self_training import pool as unlabelled
from kilotune.self_training import rounds as pseudo_labels
from kilotune.self_training.acceptance import AcceptedGuesses
from kilotune.self_training.pool import read_pool
from kilotune.self_training.rounds import Models, SelfTraining, one_round, outcome
from kilotune.session.model_session import Session
from kilotune.session.workbench import Workbench
from kilotune.training.tuning import Interrupted
from kilotune.workflows import run as pipeline
from tests.support.made import sentences
from tests.support.records import written


def recipe(folder: Path, model: Path = Path("smollm2"), **unlabeled: Any) -> Recipe:
    lines = sentences(200)
    rows = [f"{line},{('good', 'bad')[i % 2]}" for i, line in enumerate(lines[:100])]
    more = [f"{line},{('good', 'bad')[i % 2]}" for i, line in enumerate(lines[100:])]
    (folder / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    if not (folder / "more.csv").exists():
        text = "\n".join(["text,label", *more, rows[0], ","])
        (folder / "more.csv").write_text(text + "\n")
    return load_recipe(
        settings={
            "data": {"train": str(folder / "films.csv")},
            "model": {"name": str(model), "precision": "float32"},
            "unlabeled": {"file": str(folder / "more.csv"), **unlabeled},
            "tune": {"epochs": 1, "learning_rate": 5e-4},
            "judge": {"bootstrap_samples": 50, "forgetting": "never", "base_check": "say"},
        }
    )


def even(example: Example) -> str:
    """The true label: every other row's."""
    return ("good", "bad")[example.origin.row % 2]


class Played(SelfTraining):
    """Tunings that are played: right in a share of their answers, the more after each round."""

    right: Sequence[float] = (0.7, 0.95, 0.95)
    longer = 0.72
    sure = 5.0

    def _tune(self, stage: Stage, added: Sequence[Example], recipe: Recipe) -> Told:
        self.__dict__.setdefault("asked", []).append((stage, tuple(added)))
        held = self.parts[stage.fold].validation
        limit = round((self.longer if stage.longer else self.right[stage.round]) * len(held))
        scores = {e.id: float(place < limit) for place, e in enumerate(held)}

        def guess(example: Example) -> Guess:
            place = self.labels.index(even(example))
            return Guess(even(example), (self.sure, 0.0) if place == 0 else (0.0, self.sure), place)

        teaches = stage.round < recipe.unlabeled.rounds and not stage.longer
        rows = self.pool.rows if teaches else {}
        return Told(
            scores,
            {},
            {e.id: guess(e) for e in held} if teaches else {},
            {id: guess(row) for id, row in rows.items()},
            len(added),
            13 * (2 if added or stage.longer else 1),
            Cost(1.0, 10 + len(added), 2),
        )


def played(folder: Path, kind: type[Played] = Played, **unlabeled: Any) -> Played:
    prepared = prepare(recipe(folder, **unlabeled), Silent())
    pool = read_pool(prepared, Silent())
    folds = make_folds(prepared.parts.train, prepared.recipe.unlabeled.folds, 0)
    whole = Fold(len(folds), prepared.parts.train, ())
    store = StageStore(folder / "stages", prepared.recipe)
    bench = Workbench(prepared, source_at("nowhere"), folds, Silent())
    return kind(bench, folds, whole, pool, store)


def first_labels(training: Played, seed: int = 0) -> tuple[Example, ...]:
    """What the first round's model of the whole training part is tuned on besides it."""
    folds = [training.tuned(Stage(0, fold.number, seed)) for fold in training.folds]
    whole = training.tuned(Stage(0, training.whole, seed))
    return training.examples(training.accepted(whole, training.trusted(folds), seed), seed)


def test_the_pool_is_what_no_part_knows_and_its_labels_are_kept_apart(tmp_path: Path) -> None:
    prepared = prepare(recipe(tmp_path), Silent())
    pool = read_pool(prepared, Silent())
    assert (len(pool.rows), pool.total) == (100, 102)
    assert sum(pool.left.values()) == 2
    assert pool.left["no text, or unreadable"] == 1
    assert all(row.label is None and row.answer is None for row in pool.rows.values())
    assert pool.truths == {id: even(row) for id, row in pool.rows.items()}
    known = {example.text for part in prepared.parts.named().values() for example in part}
    assert not known & {row.text for row in pool.rows.values()}


def test_a_gain_is_kept_and_every_choice_is_the_folds_own(tmp_path: Path) -> None:
    training = played(tmp_path, most=30)
    found = outcome(training, Silent())
    (first,) = found.outcome.rounds
    assert first.kept
    assert first.adoption is not None
    assert first.adoption.decision == "better"
    assert found.outcome.chosen is not None
    assert found.outcome.chosen.taken == len(found.examples) == 30
    assert found.outcome.chosen.real is not None
    assert found.outcome.chosen.real.value == 1.0
    assert found.outcome.chosen.by_label == {"bad": 15, "good": 15}
    assert [e.origin.operation for e in found.examples] == ["pseudo-label"] * 30
    assert {e.origin.parent for e in found.examples} <= set(training.pool.rows)
    assert first.beyond is not None
    assert first.beyond.decision == "better"
    assert [round(one.longer or 0, 2) for one in first.seeds] == [0.72] * 3
    assert "over as many steps on the labelled examples alone: surely better: +2" in first.reason
    # Without: three folds of three seeds and, of one seed, all. With, and as many steps: the folds.
    asked = training.__dict__["asked"]
    stages = [stage for stage, _ in asked]
    assert stages == [
        *(
            Stage(number, fold, seed, longer)
            for seed in (0, 1, 2)
            for number, longer in ((0, False), (1, False), (1, True))
            for fold in (0, 1, 2)
        ),
        Stage(0, training.whole, 0),
    ]
    assert found.outcome.cost == Cost(28.0, 28 * 10 + 9 * 30, 56)
    train = {example.id for example in training.bench.prepared.parts.train}
    held = {e.id for fold in training.folds for e in fold.validation}
    assert held == train
    assert all(bool(added) == (stage.round == 1 and not stage.longer) for stage, added in asked)


class Worse(Played):
    right = (0.9, 0.6)


class Unsure(Played):
    """Every second guess on labelled texts is wrong, whatever its confidence."""

    def _tune(self, stage: Stage, added: Sequence[Example], recipe: Recipe) -> Told:
        told = super()._tune(stage, added, recipe)
        flipped = {
            id: Guess(self.labels[1 - g.place], g.logits[::-1], 1 - g.place) if i % 2 else g
            for i, (id, g) in enumerate(told.held_out.items())
        }
        return Told(told.scores, {}, flipped, told.unlabeled, told.added, 1, told.cost)


def test_harm_is_rolled_back_after_one_seed(tmp_path: Path) -> None:
    training = played(tmp_path, Worse)
    found = outcome(training, Silent())
    assert (found.outcome.kept, found.examples, found.outcome.chosen) == (0, (), None)
    assert "rolled back after one seed, which gained nothing" in found.outcome.rounds[0].reason
    assert {stage.seed for stage, _ in training.__dict__["asked"]} == {0}
    assert found.outcome.lines()[-1] == "no pseudo-label is used: tuning goes on as without them"


class Stepped(Played):
    """What is gained is gained by as many steps as well."""

    longer = 0.95


def test_a_gain_that_steps_alone_have_is_rolled_back_after_one_seed(tmp_path: Path) -> None:
    training = played(tmp_path, Stepped)
    (only,) = outcome(training, Silent()).outcome.rounds
    assert (only.kept, only.adoption, len(only.seeds)) == (False, None, 1)
    assert "as many steps on the labelled examples alone gained as much" in only.reason
    assert len(training.__dict__["asked"]) == 3 + 3 + 3


class Nearly(Played):
    """Better than as many steps, by less than can be believed."""

    longer = 0.9


def test_a_gain_must_be_sure_over_as_many_steps_too(tmp_path: Path) -> None:
    found = outcome(played(tmp_path, Nearly), Silent())
    (only,) = found.outcome.rounds
    assert only.adoption is not None
    assert only.beyond is not None
    assert (only.adoption.adopted, only.beyond.adopted) == (True, False)
    assert (only.kept, found.examples) == (False, ())
    assert only.reason.startswith("rolled back: surely better: +2")


def test_a_model_that_is_sure_and_wrong_labels_nothing(tmp_path: Path) -> None:
    training = played(tmp_path, Unsure)
    found = outcome(training, Silent())
    assert found.outcome.kept == 0
    assert "no confidence has a precision of at least 0.9" in found.outcome.rounds[0].reason
    assert found.outcome.rounds[0].seeds[0].trust.ece[0] > 0.3
    assert all(not added for _, added in training.__dict__["asked"])
    assert len(training.__dict__["asked"]) == 3


def test_a_round_that_gains_nothing_more_ends_at_the_one_before(tmp_path: Path) -> None:
    training = played(tmp_path, rounds=3, most=20)
    found = outcome(training, Silent())
    assert [one.kept for one in found.outcome.rounds] == [True, False]
    assert found.outcome.kept == 1
    assert first_labels(training) == found.examples


def test_an_altered_text_is_tuned_on_as_the_text_itself_was_answered(tmp_path: Path) -> None:
    plain = played(tmp_path, most=20)
    texts = {e.id: e for e in first_labels(plain)}
    training = played(tmp_path, most=20, train_on="altered")
    added = first_labels(training)
    assert {e.id for e in added} == texts.keys()
    for example in added:
        text = texts[example.id]
        assert (example.label, example.weight) == (text.label, text.weight)
        assert (example.origin, example.messages[1]) == (text.origin, text.messages[1])
        assert example.text != text.text
        assert set(example.text.split()) <= set(text.text.split())  # swapped or deleted
    # The operations by turns: of two texts one has all its words.
    whole = [sorted(e.text.split()) == sorted(texts[e.id].text.split()) for e in added]
    assert whole.count(True) == whole.count(False) == 10
    # The models that label are the same, whatever is tuned on.
    assert "asked" not in training.__dict__
    other = first_labels(training, 1)
    same = {e.id: e.text for e in added}
    assert any(e.text != same[e.id] for e in other if e.id in same)


def test_finished_tunings_are_not_done_again_and_other_data_are_other_tunings(
    tmp_path: Path,
) -> None:
    first = played(tmp_path, most=20)
    found = outcome(first, Silent())
    again = played(tmp_path, most=20)
    assert outcome(again, Silent()) == found
    assert "asked" not in again.__dict__
    fewer = played(tmp_path, most=10)
    outcome(fewer, Silent())
    # The models without pseudo-labels are the same.
    assert {stage.round for stage, _ in fewer.__dict__["asked"]} == {1}
    store = first.store
    assert store.find(Stage(0, 0, 0), first._made_of(Stage(0, 0, 0), (), first.recipe)) is not None
    assert store.find(Stage(0, 0, 0), first._made_of(Stage(0, 1, 0), (), first.recipe)) is None
    (tmp_path / "stages" / "round0-fold0-seed0.json").write_text("{")
    with pytest.raises(KilotuneError, match="damaged"):
        store.find(Stage(0, 0, 0), "")


def test_the_files_labels_are_for_the_report_alone(tmp_path: Path) -> None:
    training = played(tmp_path, most=20)
    told = outcome(training, Silent())
    (tmp_path / "bare").mkdir()
    lines = (tmp_path / "more.csv").read_text().splitlines()
    texts = "\n".join(line.rpartition(",")[0] for line in lines)
    (tmp_path / "bare" / "more.csv").write_text(texts + "\n")
    bare = played(tmp_path / "bare", most=20)
    assert not bare.pool.truths
    found = outcome(bare, Silent())
    assert found.outcome.chosen is not None
    assert found.outcome.chosen.real is None
    assert [e.messages for e in found.examples] == [e.messages for e in told.examples]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"labels": "soft"}, "closed labels alone"),
        ({"seeds": [0, 1]}, r"2 different seed\(s\) of 2: nothing could be adopted"),
        ({"seeds": [0, 1, 2, 0]}, r"3 different seed\(s\) of 4"),
        ({"train_on": "altered", "operations": ["wsap"]}, "no operation 'wsap'"),
        ({}, "cannot be pseudo-labelled"),
    ],
)
def test_what_cannot_be_labelled_is_said(
    tmp_path: Path, settings: dict[str, Any], what: str
) -> None:
    task = "generate" if settings else "chat"
    chosen = recipe(tmp_path, **settings)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"task": task})})
    with pytest.raises(KilotuneError, match=what):
        pipeline.start(prepare(chosen, Silent()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_of_a_known_group_are_left_out(tmp_path: Path) -> None:
    chosen = recipe(tmp_path)
    for name, first in (("films.csv", 0), ("more.csv", 90)):
        path = tmp_path / name
        head, *rows = path.read_text().splitlines()
        grouped = [f"{row},author {first + i}" for i, row in enumerate(rows)]
        path.write_text("\n".join([f"{head},author", *grouped]) + "\n")
    data = chosen.data.model_copy(update={"group": "author"})
    prepared = prepare(chosen.model_copy(update={"data": data}), Silent())
    pool = read_pool(prepared, Silent())
    assert pool.left["of a known group"] == 10
    assert len(pool.rows) == 90


def test_a_fold_that_has_nothing_to_learn_from_is_not_tuned_again(tmp_path: Path) -> None:
    class Empty(Played):
        def accepted(self, teacher: Told, trusted: Trust, seed: int) -> AcceptedGuesses:
            held = {example.id for example in self.folds[0].validation}
            found = super().accepted(teacher, trusted, seed)
            return AcceptedGuesses((), {}, {}) if held == teacher.scores.keys() else found

    training = played(tmp_path, Empty)
    models: Models = {}
    one_round(training, 1, models, Silent())
    plain, students = models[0]
    assert students[0] is plain[0]
    assert students[1] is not plain[1]
    for longer in (False, True):
        tuned = {
            s.fold for s, _ in training.__dict__["asked"] if (s.round, s.longer) == (1, longer)
        }
        assert tuned == {1, 2}


def test_a_file_of_known_texts_is_refused(tmp_path: Path) -> None:
    chosen = recipe(tmp_path)
    (tmp_path / "more.csv").write_bytes((tmp_path / "films.csv").read_bytes())
    with pytest.raises(KilotuneError, match="none of its 100 rows is new"):
        read_pool(prepare(chosen, Silent()), Silent())


def oracle(session: Session, examples: Sequence[Example], kept: object) -> tuple[Guess, ...]:
    """Guesses that are right, and sure."""
    labels = session.prepared.labels
    return tuple(
        Guess(even(e), tuple(5.0 * (label == even(e)) for label in labels), labels.index(even(e)))
        for e in examples
    )


def kept(before: Trials, after: Trials) -> Adoption:
    gain = Figure(0.1, 0.05, 0.15)
    return Adoption("better", "played", 0.5, 0.6, gain, 0.01, 1, (3, 3), (None, None))


SMALL = {"folds": 2, "seeds": [0], "most": 12}


@pytest.fixture(autouse=True)
def one_seed_may_do(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test names one: three take three times as long."""
    if "what_cannot" not in request.node.name:
        monkeypatch.setattr(unlabelled, "check_seeds", lambda seeds, where: None)


@pytest.fixture
def believing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pseudo_labels, "guess", oracle)
    monkeypatch.setattr(pseudo_labels, "adopt", kept)
    monkeypatch.setattr(pseudo_labels, "_hopeless", lambda first, target: "")


@pytest.mark.usefixtures("believing")
def test_a_run_tunes_on_what_is_kept_goes_on_where_it_stopped_and_shows_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, out = recipe(tmp_path, tiny_model, **SMALL), tmp_path / "run"
    tuned = SelfTraining._tune

    def interrupted(self: SelfTraining, stage: Stage, *given: Any) -> Told:
        if stage.round == 1:
            raise Interrupted
        return tuned(self, stage, *given)

    monkeypatch.setattr(SelfTraining, "_tune", interrupted)
    with pytest.raises(Interrupted):
        kilotune.run(chosen, out)
    files = {path: path.read_bytes() for path in (out / record.STAGES).iterdir()}
    assert len(files) == 2
    monkeypatch.setattr(SelfTraining, "_tune", tuned)
    run = pipeline.resume(out)
    assert all(path.read_bytes() == raw for path, raw in files.items())
    folder = RunFolder(out)
    told = written(folder, record.PSEUDO_LABELS)
    ids = [example["id"] for example in told["examples"]]
    assert len(ids) == told["chosen"]["taken"] == 12
    assert set(ids) <= set(written(folder, record.DATA)["split"]["train"])
    assert told["chosen"]["real"]["value"] == 1.0
    assert run.pseudo_labels is not None
    assert run.pseudo_labels.kept == 1
    steps = [
        json.loads((out / record.STAGES / f"round{name}.json").read_text())["steps"]
        for name in ("0-fold1-seed0", "1-fold1-seed0", "1-fold1-seed0-longer")
    ]
    assert steps[0] < steps[1] == steps[2]
    spent = written(folder, record.ENVIRONMENT)
    assert spent["seconds"]["pseudo-labels"] == told["cost"]["seconds"] > 0
    assert spent["tokens"]["trained"] > told["cost"]["trained"] > 0
    body = run.report.read_text(encoding="utf-8").rpartition("<body>")[2]
    precision = told["trust"]["precision"]
    promised = f"from a calibrated confidence of {told['trust']['threshold']:.3f} up"
    assert promised in body
    assert f"{precision['value']:.3f}" in body
    assert body.count("1.000, 1.000") == 1  # the real precision of each fold's
    (seed,) = told["rounds"][0]["seeds"]
    assert f'<td class="number">{seed["longer"]:.3f}</td>' in body
    assert "12 texts of" in body
    assert "of which 12 pseudo-labelled" in body
    assert "1 (repeats train)" in body or "1 (repeats" in body


@pytest.mark.slow
@pytest.mark.usefixtures("believing")
def test_two_rounds_of_soft_labels_are_tuned_each_from_the_base_model(
    tmp_path: Path, tiny_model: Path
) -> None:
    run = kilotune.run(
        recipe(tmp_path, tiny_model, labels="soft", rounds=2, **SMALL), tmp_path / "run"
    )
    folder = RunFolder(run.folder)
    told = written(folder, record.PSEUDO_LABELS)
    assert (told["kept"], [one["kept"] for one in told["rounds"]]) == (2, [True, True])
    weights: dict[str, float] = {}
    for example in told["examples"]:
        weights[example["parent"]] = weights.get(example["parent"], 0.0) + example["weight"]
    assert len(weights) == 12
    assert all(0.9 <= weight <= 1.001 for weight in weights.values())
    names = {path.name for path in (run.folder / record.STAGES).iterdir()}
    assert {f"round{n}-fold{f}-seed0.json" for n in (0, 1, 2) for f in (0, 1)} <= names
    # The model that labels in the end is that of round 1, tuned on all labelled texts.
    assert "round1-fold2-seed0.json" in names
    assert folder.finished


def test_a_run_that_rolls_back_is_one_without_to_the_bit(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_labels, "guess", oracle)
    chosen = recipe(tmp_path, tiny_model, **SMALL)
    run = kilotune.run(chosen, tmp_path / "with")
    told = json.loads((tmp_path / "with" / record.PSEUDO_LABELS).read_text())
    assert (told["kept"], told["examples"], told["chosen"]) == (0, [], None)
    # The random model answers nothing, with or without.
    assert "gained nothing" in told["rounds"][0]["reason"]
    assert [fold["taken"] for fold in told["rounds"][0]["seeds"][0]["folds"]] == [12, 12]
    plain = chosen.model_copy(
        update={"unlabeled": chosen.unlabeled.model_copy(update={"file": None})}
    )
    other = kilotune.run(plain, tmp_path / "without")
    weights = "adapter_model.safetensors"
    assert (run.weights / weights).read_bytes() == (other.weights / weights).read_bytes()
    assert other.pseudo_labels is None
    assert "None is used: the model was tuned as without" in run.report.read_text()


def test_a_file_that_cannot_be_read_stops_before_a_folder_is_made(
    tmp_path: Path, tiny_model: Path
) -> None:
    chosen = recipe(tmp_path, tiny_model, **SMALL)
    (tmp_path / "more.csv").unlink()
    with pytest.raises(KilotuneError, match=r"more\.csv"):
        kilotune.run(chosen, tmp_path / "run")
    assert not (tmp_path / "run").exists()
