"""The whole job on a tiny random model: every record is there, and says what happened."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import kilotune
from kilotune.errors import KilotuneError
from kilotune.evaluation.decoding_race import DecodingChoice
from kilotune.evaluation.evidence import Estimate, Figure
from kilotune.evaluation.task_metrics import token_f1
from kilotune.evaluation.verdict import Verdict
from kilotune.generation.decoding import Generation
from kilotune.models.identity import tuned_digest
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import DecodingSettings, Recipe
from kilotune.rendering.probe import chat_template
from kilotune.runs.record import RunFolder, code_digest
from kilotune.session.judging import Judged
from kilotune.training import tuning
from kilotune.workflows import stages
from kilotune.workflows.predict import predict
from kilotune.workflows.run import Run
from tests.support.made import classified
from tests.support.records import written
from tests.support.tiny import CHATML, labelled_csv

RECORDS = {
    "adapter", "baselines.json", "baselines.safetensors", "checkpoints", "data.json",
    "environment.json", "findings.json", "freeze_proof.json", "identity.json", "judgement.json",
    "metrics.jsonl", "predictions.parquet", "recipe.yaml", "report.html", "run.lock",
    "validation.parquet", "verdict.json", "advice.json",
}  # fmt: skip


def recipe(data: Path, model: Path, *overrides: str, preset: str = "auto") -> Recipe:
    always = ["model.precision=float32", "tune.learning_rate=1e-2", "judge.bootstrap_samples=200"]
    settings = {"data": {"train": str(data)}, "model": {"name": str(model)}}
    return load_recipe(preset=preset, settings=settings, overrides=[*always, *overrides])


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("finished")
    data = labelled_csv(folder / "films.csv", 80)
    epochs = ("tune.epochs=4", "tune.stopping.patience=4", "tune.refit=never")
    return kilotune.run(recipe(data, tiny_model, *epochs), folder / "run")


def test_every_record_is_written_and_nothing_else(finished: Run) -> None:
    assert {path.name for path in finished.folder.iterdir()} == RECORDS
    assert {path.name for path in finished.weights.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "generation_config.json",
        "tokenizer.json",
    }


def test_the_parts_are_disjoint_and_the_predictions_are_of_the_test_part(
    finished: Run,
) -> None:
    folder = RunFolder(finished.folder)
    parts = written(folder, "data.json")["split"]
    assert {name: len(ids) for name, ids in parts.items()} == {
        "train": 51, "validation": 13, "test": 16,
    }  # fmt: skip
    assert len(set().union(*parts.values())) == 80
    rows = folder.read_predictions()
    assert [row["id"] for row in rows] == parts["test"]


def test_the_figures_are_those_of_the_predictions(finished: Run) -> None:
    rows = RunFolder(finished.folder).read_predictions()
    for judgement in finished.judgements:
        right = sum(row[f"{judgement.name}_right"] for row in rows)
        assert judgement.figures["accuracy"].value == pytest.approx(right / len(rows))
    assert [j.name for j in finished.judgements] == [
        "majority",
        "tfidf",
        "states",
        "few_shot",
        "base",
        "tuned",
    ]


def test_the_cost_and_the_code_are_on_record(finished: Run) -> None:
    folder = RunFolder(finished.folder)
    environment = written(folder, "environment.json")
    assert environment["code"] == code_digest()
    data, log = written(folder, "data.json"), folder.read_metrics()
    lines = folder.read_recipe().data.train.read_text().splitlines()
    asked = data["wording"]["system"] + data["wording"]["question"].replace("{text}", "")
    # A byte is a token; a turn adds its role, a line's end, and two markers.
    turns = len("system\n\nuser\n\nassistant\n") + 6
    once = sum(
        len(lines[int(id.split(":")[1]) - 1].replace(",", "")) + len(asked) + turns
        for id in data["split"]["train"]
    )
    assert environment["tokens"]["trained"] == once * max(line["epoch"] for line in log)
    answers = [row["tuned_output"] for row in folder.read_predictions()]
    assert environment["tokens"]["generated"] > sum(map(len, answers))


def test_validation_answers_are_kept_by_example(finished: Run) -> None:
    folder = RunFolder(finished.folder)
    rows = folder.read_predictions("validation.parquet")
    assert [row["id"] for row in rows] == written(folder, "data.json")["split"]["validation"]
    judged = {j["name"]: j for j in written(folder, "judgement.json")["validation"]}
    right = sum(row["tuned_right"] for row in rows)
    assert judged["tuned"]["figures"]["accuracy"]["value"] == pytest.approx(right / len(rows))


def test_label_probabilities_are_judged_beside_the_generated_labels(finished: Run) -> None:
    document = written(finished.folder, "judgement.json")
    *others, tuned = document["test"]
    assert all(system["calibration"] is None for system in others)
    assert sum(bin["examples"] for bin in tuned["calibration"]["bins"]) == 16
    rows = {row["id"]: row for row in RunFolder(finished.folder).read_predictions()}
    assert set(tuned["calibration"]["disagreeing"]) <= set(rows)
    gain = document["gains"]["accuracy"]
    figures = {s["name"]: s["figures"]["accuracy"]["value"] for s in document["test"]}
    assert gain["value"] == pytest.approx(figures["tuned"] - figures["base"])


def test_the_frozen_part_is_proved(finished: Run) -> None:
    proof = written(finished.folder, "freeze_proof.json")
    assert all(before == after for before, after in proof["frozen"].values())
    assert len(proof["moved"]) == 3 * 7 * 2
    assert proof["unmoved"] == []


def test_plain_peft_and_transformers_generate_the_same(finished: Run, tiny_model: Path) -> None:
    folder = RunFolder(finished.folder)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, finished.weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(finished.weights)
    config = GenerationConfig.from_pretrained(finished.weights)
    wording = written(folder, "data.json")["wording"]
    for row in folder.read_predictions()[:8]:
        messages = [
            {"role": "system", "content": wording["system"]},
            {"role": "user", "content": wording["question"].replace("{text}", row["prompt"])},
        ]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, generation_config=config)
        said = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert said.strip() == row["tuned_output"]


def test_predict_labels_a_file_as_the_run_did(finished: Run, tmp_path: Path) -> None:
    rows = RunFolder(finished.folder).read_predictions()
    file, out = tmp_path / "new.jsonl", tmp_path / "labelled.jsonl"
    lines = [json.dumps({"n": i, "text": row["prompt"]}) for i, row in enumerate(rows)]
    file.write_text("\n".join([*lines, '{"n": 99, "text": ""}']))
    done = predict(finished.folder, file, out)
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["n"] for row in written] == [*range(len(rows)), 99]
    assert [row["prediction"] for row in written] == [*(r["tuned_prediction"] for r in rows), ""]
    assert done.empty == sum(row["prediction"] == "" for row in written)
    for row in written:
        if row["prediction"]:  # of two labels, tuned well apart
            assert 0.5 < row["probability"] <= 1
        else:
            assert row["probability"] is None
    with pytest.raises(KilotuneError, match="left as it is"):
        predict(finished.folder, file, out)


def test_rows_that_cannot_be_asked_are_named_and_the_others_answered(
    finished: Run, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.folder, run)
    template = run / "adapter" / "chat_template.jinja"
    refusing = (
        "{% if 'forbidden' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}"
    )
    template.write_text(refusing + template.read_text())
    RunFolder(run).note_identity(tuned=tuned_digest(run / "adapter"))
    texts = ["a fine film", "a forbidden film", "a dull film"]
    file = write_lines(tmp_path / "new.jsonl", [{"text": t} for t in texts] + [{"text": ["x"]}])
    done = predict(run, file, tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert done.not_answered == {"file:2": "template-refuses", "file:4": "wrong-type"}
    assert [row["not_answered"] for row in rows] == ["", "template-refuses", "", "wrong-type"]
    alone = write_lines(tmp_path / "alone.jsonl", [{"text": texts[0]}, {"text": texts[2]}])
    assert predict(finished.folder, alone, tmp_path / "alone.csv").not_answered == {}
    with (tmp_path / "alone.csv").open() as lines:
        expected = [row["prediction"] for row in csv.DictReader(lines)]
    assert [row["prediction"] for row in rows] == [expected[0], "", expected[1], ""]


def test_the_saved_recipe_repeats_the_run(finished: Run, tmp_path: Path) -> None:
    again = kilotune.run(load_recipe(finished.folder / "recipe.yaml"), tmp_path / "again")
    assert again.judgements == finished.judgements
    assert again.verdict == finished.verdict
    first, second = (RunFolder(run.folder) for run in (finished, again))
    assert second.read_predictions() == first.read_predictions()
    losses = [[m["loss"] for m in f.read_metrics() if "loss" in m] for f in (first, second)]
    assert losses[0] == losses[1]


def test_a_finished_run_cannot_be_resumed(finished: Run) -> None:
    with pytest.raises(KilotuneError, match="the run is finished"):
        kilotune.resume(finished.folder)


def test_a_stopped_run_resumes_to_the_same_result(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(labelled, tiny_model, "tune.epochs=2", "tune.stopping.patience=9")
    whole = kilotune.run(chosen, tmp_path / "whole")

    class StopsAtStepFive(tuning.Watch):
        def on_step_end(self, args, state, control, **kwargs):  # type: ignore[no-untyped-def]
            self.interrupted = state.global_step == 5
            super().on_step_end(args, state, control, **kwargs)

    monkeypatch.setattr(tuning, "Watch", StopsAtStepFive)
    with pytest.raises(KeyboardInterrupt):
        kilotune.run(chosen, tmp_path / "parts")
    monkeypatch.undo()
    with pytest.raises(KilotuneError, match="not finished"):
        predict(tmp_path / "parts", labelled, tmp_path / "out.csv")
    # What a power loss in the middle of a save leaves behind counts for nothing.
    (tmp_path / "parts" / "checkpoints" / "checkpoint-6").mkdir()
    resumed = kilotune.resume(tmp_path / "parts")
    assert resumed.judgements == whole.judgements
    log = RunFolder(tmp_path / "parts").read_metrics()
    assert [m["step"] for m in log if "loss" in m] == list(range(1, 9))


def test_resuming_on_changed_data_is_refused(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kilotune.session.fine_tuning.tune", lambda *a, **k: stop())
    with pytest.raises(KeyboardInterrupt):
        kilotune.run(recipe(labelled, tiny_model), tmp_path / "run")
    labelled.write_text(labelled.read_text() + "one more,good\n")
    with pytest.raises(KilotuneError, match="data have changed"):
        kilotune.resume(tmp_path / "run")


def test_top_layers_saves_a_whole_model(labelled: Path, tiny_model: Path, tmp_path: Path) -> None:
    chosen = recipe(
        labelled, tiny_model, "tune.layers=top:1", "tune.epochs=1", preset="article-top-layers"
    )
    run = kilotune.run(chosen, tmp_path / "run")
    assert run.weights == tmp_path / "run" / "model"
    base = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    tuned = AutoModelForCausalLM.from_pretrained(run.weights).state_dict()
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed
    assert all(name.startswith("model.layers.2.") for name in changed)
    out = tmp_path / "labelled.csv"
    predict(run.folder, labelled, out)
    assert len(out.read_text().splitlines()) == 41


def write_lines(path: Path, rows: list[dict]) -> Path:  # type: ignore[type-arg]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "asked", ["tune.frozen=[nowhere.*]", "tune.layers=top:4", "tune.target_modules=[c_attn]"]
)
def test_what_the_model_has_not_is_said_before_anything_is_written(
    asked: str, labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError) as caught:
        kilotune.run(recipe(labelled, tiny_model, asked), tmp_path / "run")
    assert caught.value.where == asked.partition("=")[0]
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_there_is_said_before_anything_is_written(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilotuneError, match="nowhere is not supported") as caught:
        kilotune.run(recipe(labelled, tiny_model, "tune.report_to=[nowhere]"), tmp_path / "run")
    assert caught.value.where == "tune.report_to=nowhere"
    assert not (tmp_path / "run").exists()


def test_the_largest_seed_and_a_training_part_of_one_label_come_to_their_end(
    tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "films.csv"
    file.write_text("text,label\n" + "".join(f"film {i},good\n" for i in range(40)) + "one,bad\n")
    chosen = recipe(file, tiny_model, f"seed={2**32 - 1}", "tune.epochs=1")
    assert RunFolder(kilotune.run(chosen, tmp_path / "run").folder).finished


def test_free_text_is_tuned_and_judged_by_its_words(tiny_model: Path, tmp_path: Path) -> None:
    numbers = ("one two", "two three", "three four five", "four six", "five one", "six two one")
    rows = [
        {"prompt": f"count {i} from {numbers[i % 6]}", "completion": f"{numbers[-i % 6]} at {i}"}
        for i in range(48)
    ]
    data = write_lines(tmp_path / "pairs.jsonl", rows)
    run = kilotune.run(recipe(data, tiny_model, "tune.epochs=1"), tmp_path / "run")
    folder = RunFolder(run.folder)
    assert written(folder, "data.json")["task"] == "generate"
    assert folder.read_recipe().tune.stopping.metric == "token_f1"
    tuned = run.judgements[-1]
    assert list(tuned.figures) == ["exact_match", "token_f1"]
    predictions = folder.read_predictions()
    by_hand = [token_f1(row["tuned_prediction"], row["reference"]) for row in predictions]
    assert tuned.figures["token_f1"].value == pytest.approx(sum(by_hand) / len(by_hand))
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("token F1", "commonest answer", "most similar (TF-IDF)"))
    assert "commonest label" not in page
    out = tmp_path / "answered.jsonl"
    empty = predict(
        run.folder, write_lines(tmp_path / "new.jsonl", [{"prompt": "count"}]), out
    ).empty
    (answered,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert empty == (answered["prediction"] == "")


def test_json_answers_are_judged_by_their_fields(tiny_model: Path, tmp_path: Path) -> None:
    cities = ("Oslo", "Lima", "Kochi", "Turin", "Nara")
    rows = [
        {"prompt": f"Ann{i}, {20 + i}, {cities[i % 5]}", "completion": json.dumps({"age": 20 + i})}
        for i in range(40)
    ]
    data = write_lines(tmp_path / "people.jsonl", rows)
    run = kilotune.run(recipe(data, tiny_model, "tune.epochs=1"), tmp_path / "run")
    by_name = {judgement.name: judgement for judgement in run.judgements}
    assert list(by_name["tuned"].figures) == ["exact_match", "field_f1"]
    assert by_name["base"].unreadable == by_name["base"].examples  # a random model writes no JSON
    assert by_name["majority"].unreadable == 0


def test_every_answer_of_a_chat_is_trained_and_the_last_is_judged(
    tiny_model: Path, tmp_path: Path
) -> None:
    def chat(i: int) -> dict:  # type: ignore[type-arg]
        said = [f"hello {i}", f"and {i} to you", f"what is {i} and {i}", f"it is {i + i}"]
        roles = ("user", "assistant")
        return {"messages": [{"role": roles[n % 2], "content": t} for n, t in enumerate(said)]}

    data = write_lines(tmp_path / "chats.jsonl", [chat(i) for i in range(40)])
    run = kilotune.run(recipe(data, tiny_model, "tune.epochs=1"), tmp_path / "run")
    folder = RunFolder(run.folder)
    assert written(folder, "data.json")["task"] == "chat"
    references = {row["id"]: row["reference"] for row in folder.read_predictions()}
    assert references == {id: f"it is {2 * (int(id.split(':')[1]) - 1)}" for id in references}


def test_a_metric_of_another_task_is_refused(labelled: Path, tiny_model: Path) -> None:
    with pytest.raises(KilotuneError, match="'classify' has no metric 'token_f1'"):
        kilotune.run(recipe(labelled, tiny_model, "tune.stopping.metric=token_f1"))


def test_what_cannot_be_asked_of_the_test_part_stops_the_run_before_training(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% if 'forbidden' in messages[-1].content %}{{ raise_exception('not this') }}{% endif %}"
        + CHATML
    )
    test = tmp_path / "test.csv"
    test.write_text("text,label\na fine film,good\nforbidden words,bad\na dull film,bad\n")
    chosen = recipe(
        labelled, tiny_model, f"model.chat_template={template}", f"data.test={test}",
        "data.question={text}",
    )  # fmt: skip
    with pytest.raises(KilotuneError, match=r"(?s)not this.*test:3"):
        kilotune.run(chosen, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_streamed_run_ends_like_one_in_memory_and_says_how_it_stopped(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    runs = {}
    for streaming in ("never", "always"):
        chosen = recipe(
            labelled,
            tiny_model,
            "tune.layers=top:1",
            "tune.stopping.metric=loss",
            "tune.refit=never",
            f"tune.streaming={streaming}",
        )
        runs[streaming] = kilotune.run(chosen, tmp_path / streaming)
    plain, streamed = runs["never"], runs["always"]
    # What would read the layers below for each token is not asked.
    beside = [one for one in plain.judgements if one.name not in ("states", "few_shot")]
    assert list(streamed.judgements) == beside
    before, after = (RunFolder(run.folder).read_metrics() for run in (plain, streamed))
    for key in ("loss", "eval_loss"):
        losses = [line[key] for line in before if key in line]
        assert [line[key] for line in after if key in line] == pytest.approx(losses, rel=1e-4)
    assert not [line for line in after if "eval_macro_f1" in line]
    tuning = written(streamed.folder, "judgement.json")["tuning"]
    assert (tuning["cache"]["streamed"], tuning["cache"]["below"]) == (2, 2)
    assert "stopped by the validation loss" in streamed.report.read_text()
    for run in (plain, streamed):
        predict(run.folder, labelled, tmp_path / f"{run.folder.name}.csv")
    assert (tmp_path / "always.csv").read_text() == (tmp_path / "never.csv").read_text()
    assert len((tmp_path / "always.csv").read_text().splitlines()) == 41


def test_a_streamed_run_without_validation_trains_to_its_end(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    chosen = recipe(
        labelled, tiny_model, "tune.layers=top:1", "tune.streaming=always", "tune.epochs=1",
        "data.validation_fraction=0",
    )  # fmt: skip
    assert kilotune.run(chosen, tmp_path / "run").folder == tmp_path / "run"
    assert RunFolder(tmp_path / "run").finished


def test_a_run_that_died_behind_its_weights_goes_on(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*given: object) -> None:
        raise KeyboardInterrupt

    chosen = recipe(labelled, tiny_model, "tune.epochs=1")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "preference", died)
        with pytest.raises(KeyboardInterrupt):
            kilotune.run(chosen, tmp_path / "run")
    assert (tmp_path / "run" / "adapter").is_dir()
    kilotune.resume(tmp_path / "run")
    assert RunFolder(tmp_path / "run").finished


def test_given_validation_and_test_files_are_respected(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    for name in ("val", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name} one,good\n{name} two,bad\n")
    overrides = [f"data.validation={tmp_path}/val.csv", f"data.test={tmp_path}/test.csv"]
    run = kilotune.run(recipe(labelled, tiny_model, *overrides, "tune.epochs=1"), tmp_path / "run")
    parts = written(run.folder, "data.json")["split"]
    assert len(parts["train"]) == 40
    assert parts["validation"] == ["validation:2", "validation:3"]
    assert parts["test"] == ["test:2", "test:3"]


def test_a_cut_text_is_found_and_said(labelled: Path, tiny_model: Path, tmp_path: Path) -> None:
    template = chat_template(AutoTokenizer.from_pretrained(tiny_model))
    assert template.stop_id
    rows = labelled.read_text().replace("film 0 ", "film 0 " + "long " * 40)
    labelled.write_text(rows)
    chosen = recipe(labelled, tiny_model, "data.max_length=220", "tune.epochs=1", "seed=1")
    run = kilotune.run(chosen, tmp_path / "run")
    findings = written(run.folder, "findings.json")["findings"]
    parts = written(run.folder, "data.json")["split"]
    cut = [] if "data:2" in parts["test"] else [["truncated", ["data:2"]]]
    before = [f for f in findings if f["code"] != "scores-disagree"]  # said after training
    assert [[f["code"], f["rows"]] for f in before] == [["long-outlier", ["data:2"]], *cut]


def test_labels_that_the_tuned_model_contradicts_are_listed_where_it_has_learnt() -> None:
    examples = tuple(classified(*((f"film {i}", "ab"[i % 2]) for i in range(20))))
    likely = np.array([[0.9, 0.1], [0.1, 0.9]] * 10)
    likely[3] = [0.95, 0.05]
    learnt = Verdict("underfit", {}, (), {"gain_low": 0.2}, ())
    (finding,) = stages._doubted((examples, likely), ["a", "b"], learnt)
    assert (finding.code, finding.rows) == ("suspicious-label", (examples[3].id,))
    for other in (replace(learnt, figures={"gain_low": 0.0}), replace(learnt, name="unstable")):
        assert stages._doubted((examples, likely), ["a", "b"], other) == []
    assert stages._doubted(None, [], learnt) == []


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """From here on every model says `text` to everything."""

    def generate(*args: object, **_: object) -> list[Generation]:
        _, tokenizer, prompts, *_ = args
        ids = (*tokenizer.encode(text), tokenizer.eos_token_id)  # type: ignore[attr-defined]
        return [Generation(text, stopped=True, token_ids=ids) for _ in prompts.token_ids]  # type: ignore[attr-defined]

    monkeypatch.setattr("kilotune.generation.answer.generate", generate)


@pytest.mark.parametrize(("text", "why"), [("", "are empty"), ("!!!!!!", "are '!!!!!!'")])
def test_a_pretrained_model_that_does_not_generate_stops_the_run_before_tuning(
    text: str,
    why: str,
    labelled: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, text)
    with pytest.raises(KilotuneError, match=f"(?s)does not generate: all 7 answers {why}.*=say"):
        kilotune.run(recipe(labelled, tiny_model), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_model_whose_logits_are_not_finite_stops_the_run(
    labelled: Path, tiny_model: Path, tmp_path: Path
) -> None:
    broken = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    broken.model.layers[1].mlp.up_proj.weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "model")
    with pytest.raises(KilotuneError, match=r"not finite: model\.layers\.1\.mlp\.up_proj\.weight"):
        kilotune.run(recipe(labelled, tmp_path / "model"), tmp_path / "run")


def test_a_recipe_may_have_a_model_tuned_that_does_not_generate(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, "")
    chosen = recipe(labelled, tiny_model, "judge.base_check=say", "tune.epochs=1")
    run = kilotune.run(chosen, tmp_path / "run")
    tuned = written(run.folder, "judgement.json")["test"][-1]
    assert (tuned["name"], tuned["health"]["empty"]) == ("tuned", tuned["examples"])


def test_how_answers_came_out_is_recorded_for_both_models_on_every_judged_part(
    finished: Run,
) -> None:
    judged = written(finished.folder, "judgement.json")
    for part, size in (("validation", 13), ("test", 16)):
        by_name = {system["name"]: system["health"] for system in judged[part]}
        assert by_name["majority"] is by_name["tfidf"] is None
        for name in ("base", "tuned"):
            assert by_name[name]["answers"] == size
            assert by_name[name]["stopped"] + by_name[name]["cut"] == size
    tuned = by_name["tuned"]
    assert tuned["unparsable"] + tuned["empty"] == judged["test"][-1]["unreadable"]


def test_a_recipe_may_have_the_decoding_chosen_which_both_models_are_then_judged_by(
    labelled: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = DecodingSettings(max_new_tokens=11, temperature=1.0)
    monkeypatch.setattr(
        "kilotune.workflows.decode.choose",
        lambda *_: DecodingChoice(hot, "because", (), {}, 3, 4, 0),
    )
    answering(monkeypatch, "good")
    settings = ("decoding.search=true", "judge.forgetting=never", "tune.epochs=1")
    run = kilotune.run(recipe(labelled, tiny_model, *settings), tmp_path / "run")
    assert run.forgetting is None
    config = GenerationConfig.from_pretrained(run.weights)
    assert (config.do_sample, config.temperature, config.max_new_tokens) == (True, 1.0, 11)
    assert written(run.folder, "decoding.json")["chosen"]["temperature"] == 1.0


def test_what_was_forgotten_is_measured_on_what_the_base_model_says(
    finished: Run,
    labelled: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert finished.forgetting is None  # this one says nothing but white space
    assert "What was forgotten" not in finished.report.read_text(encoding="utf-8")
    answering(monkeypatch, "good")
    run = kilotune.run(recipe(labelled, tiny_model, "tune.epochs=1"), tmp_path / "run")
    found = written(run.folder, "judgement.json")["forgetting"]
    assert run.forgetting is not None
    assert found["prompts"] == run.forgetting.prompts == 10
    assert found["tokens"] == 10 * len("good.")  # a token each letter, and the end
    assert 0 < found["kept"]["low"] <= found["kept"]["value"] <= found["kept"]["high"] < 1
    assert found["perplexity"] < found["base_perplexity"]  # it was trained to say this
    assert found["health"]["answers"] == found["base_health"]["answers"] == 10
    assert "What was forgotten" in run.report.read_text(encoding="utf-8")


@pytest.mark.parametrize(("low", "asked"), [(0.1, False), (-0.1, True)])
def test_examples_in_the_prompt_are_not_asked_again_where_they_surely_lose(
    low: float,
    asked: bool,
    labelled: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gain = Judged.gain

    def decided(self: Judged, before: str, after: str) -> Estimate:
        prompted = (before, after) == ("few_shot", "base")
        return Figure(0.3, low, 0.5) if prompted else gain(self, before, after)

    monkeypatch.setattr(Judged, "gain", decided)
    settings = ("judge.forgetting=never", "tune.epochs=1", "judge.baselines=[few_shot]")
    run = kilotune.run(recipe(labelled, tiny_model, *settings), tmp_path / "run")
    judged = written(run.folder, "judgement.json")
    assert "few_shot" in [system["name"] for system in judged["validation"]]
    assert ("few_shot" in [system["name"] for system in judged["test"]]) is asked
