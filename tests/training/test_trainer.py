import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.recipe.load import load_recipe
from kilotune.recipe.schema import Recipe
from kilotune.rendering.label_mask import Rendering
from kilotune.training import tuning
from kilotune.training.tuning import Hooks, Interrupted, TuningJob, tune
from kilotune.training.tuning_result import Agreement, Tuning

PAD = 256


def renderings(count: int) -> list[Rendering]:
    """The last token repeats the first: learnable by copying."""
    made = []
    for number in range(count):
        ids = [(37 * number + i) % 250 for i in range(6 + number % 5)]
        ids.append(ids[0])
        mask = (False,) * (len(ids) - 1) + (True,)
        made.append(Rendering(f"data:{number}", tuple(ids), mask, len(ids) - 1))
    return made


def recipe(*overrides: str, preset: str = "auto") -> Recipe:
    always = ["model.precision=float32", "tune.learning_rate=1e-2", "tune.stopping.patience=9"]
    always += ["tune.stopping.metric=macro_f1", "tune.epochs=3"]
    return load_recipe(
        preset=preset, settings={"data": {"train": "x.csv"}}, overrides=[*always, *overrides]
    )


@dataclass
class Trial:
    """One training of the tiny model, its measure played from a list."""

    model: Path
    folder: Path
    recipe: Recipe
    measured: list[float] = field(default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    log: list[dict[str, float]] = field(default_factory=list)
    on_measure: Callable[[int], None] = lambda count: None
    on_load: Callable[[Any], None] = lambda model: None
    rounds: Sequence[Sequence[int]] = ()

    def run(self) -> Tuning:
        base = source_at(self.model).model(torch.float32)
        self.on_load(base)
        self.tunable = Tunable(base, self.recipe.tune, self.recipe.seed)
        self.weights: list[torch.Tensor] = []

        def measure(model: Any) -> dict[str, float]:
            self.weights.append(self.flat())
            self.on_measure(len(self.weights))
            return {"macro_f1": self.measured.pop(0), "accuracy": 0.0}

        job = TuningJob(
            self.recipe, renderings(20), renderings(6), PAD, self.folder, rounds=self.rounds
        )
        return tune(self.tunable, job, Hooks(measure, self.log.append))

    def flat(self) -> torch.Tensor:
        return torch.cat([p.detach().flatten().clone() for _, p in self.tunable.trained()])

    def losses(self) -> list[float]:
        return [line["loss"] for line in self.log if "loss" in line]


@pytest.mark.parametrize("preset", ["auto", "article-top-layers"])
def test_the_best_checkpoint_is_restored(tiny_model: Path, tmp_path: Path, preset: str) -> None:
    layers = ["tune.layers=top:1"] if preset != "auto" else []
    trial = Trial(tiny_model, tmp_path, recipe(*layers, preset=preset), [0.2, 0.9, 0.4])
    tuning = trial.run()
    assert (tuning.steps, tuning.best_step, tuning.best_metric) == (9, 6, 0.9)
    assert torch.equal(trial.flat(), trial.weights[1])
    assert not torch.equal(trial.flat(), trial.weights[2])
    assert trial.tunable.prove().unmoved == ()


def test_no_autocast_is_left_around_what_is_judged(tiny_model: Path, tmp_path: Path) -> None:
    chosen = recipe(
        "model.precision=bfloat16",
        "tune.epochs=1",
        preset="article-top-layers",
    )
    chosen = chosen.model_copy(update={"tune": chosen.tune.model_copy(update={"layers": "top:1"})})
    trial = Trial(tiny_model, tmp_path, chosen)
    trial.run()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        inside = trial.tunable.model.model(ids).last_hidden_state
    assert inside.dtype == torch.float32
    plain = source_at(tiny_model).model(torch.float32)
    plain.load_state_dict(trial.tunable.model.state_dict())
    with torch.no_grad():
        assert torch.equal(trial.tunable.model(ids).logits, plain(ids).logits)


def test_training_stops_early_and_says_why(tiny_model: Path, tmp_path: Path) -> None:
    short = recipe("tune.stopping.patience=1", "tune.stopping.minimum_gain=0.05")
    tuning = Trial(tiny_model, tmp_path, short, [0.5, 0.52, 0.9]).run()
    assert tuning.steps == 6
    assert tuning.stopped.startswith("early, at step 6: validation macro_f1 gained no more")


def test_evaluations_come_every_so_many_steps_and_at_the_last(
    tiny_model: Path, tmp_path: Path
) -> None:
    trial = Trial(tiny_model, tmp_path, recipe("tune.stopping.every=4"), [0.1, 0.2, 0.9])
    tuning = trial.run()
    assert [line["step"] for line in trial.log if "eval_loss" in line] == [4, 8, 9]
    assert (tuning.steps, tuning.best_step) == (9, 9)
    assert torch.equal(trial.flat(), trial.weights[2])


def test_a_run_resumed_between_evaluations_stops_at_the_same_step(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings = "tune.stopping.every=2", "tune.stopping.patience=2"
    figures = [0.5, 0.6, 0.5, 0.4, 0.9]
    whole = Trial(tiny_model, tmp_path / "whole", recipe(*settings), list(figures))
    assert whole.run().steps == 8

    def press(count: int) -> None:
        if count == 3:
            os.kill(os.getpid(), signal.SIGINT)

    parts = Trial(tiny_model, tmp_path / "parts", recipe(*settings), figures, on_measure=press)
    with pytest.raises(Interrupted):
        parts.run()
    resumed = Trial(tiny_model, tmp_path / "parts", recipe(*settings), [0.4, 0.9])
    tuning = resumed.run()
    assert (tuning.steps, tuning.best_step) == (8, 4)
    assert torch.equal(resumed.flat(), whole.flat())


def test_every_step_and_evaluation_is_logged(tiny_model: Path, tmp_path: Path) -> None:
    trial = Trial(tiny_model, tmp_path, recipe("tune.epochs=2"))
    trial.run()
    assert len(trial.losses()) == 6
    assert [line["eval_macro_f1"] for line in trial.log if "eval_loss" in line] == [0.1, 0.2]
    assert all({"step", "grad_norm", "learning_rate"} <= line.keys()
               for line in trial.log if "loss" in line)  # fmt: skip


def test_the_micro_batch_does_not_change_the_training(tiny_model: Path, tmp_path: Path) -> None:
    trials = [
        Trial(tiny_model, tmp_path / str(micro), recipe(f"tune.micro_batch_size={micro}"))
        for micro in (8, 2)
    ]
    for trial in trials:
        trial.run()
    whole, parts = (trial.losses() for trial in trials)
    assert parts == pytest.approx(whole, rel=1e-4)


def test_thirty_steps_by_either_path_end_with_the_same_losses(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = recipe("tune.epochs=10")
    packed = Trial(tiny_model, tmp_path / "packed", long, [0.1] * 10)
    assert packed.run().agreement.packed
    monkeypatch.setattr(
        "kilotune.training.tuning.agree", lambda *_: Agreement("padded", "to compare with")
    )
    padded = Trial(tiny_model, tmp_path / "padded", long, [0.1] * 10)
    assert padded.run().agreement.path == "padded"
    assert len(packed.losses()) == 30
    assert packed.losses()[-1] < 0.9 * packed.losses()[0]
    assert packed.losses() == pytest.approx(padded.losses(), rel=1e-4)


def test_validation_loss_is_the_mean_over_labelled_tokens(tiny_model: Path, tmp_path: Path) -> None:
    trial = Trial(tiny_model, tmp_path, recipe("tune.epochs=1"))
    trial.run()
    (logged,) = [line["eval_loss"] for line in trial.log if "eval_loss" in line]
    total, count = 0.0, 0
    for rendering in renderings(6):
        ids = torch.tensor([rendering.token_ids])
        labels = torch.where(torch.tensor([rendering.label_mask]), ids, -100)
        with torch.no_grad():
            total += float(trial.tunable.model(input_ids=ids, labels=labels).loss)
        count += 1
    assert logged == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [[], ["tune.trainable=[model.norm.weight]"], ["tune.method=dora", "tune.frozen=['*lora_A*']"]],
    ids=["lora", "lora and a norm", "dora without A"],
)
def test_ctrl_c_keeps_a_checkpoint_and_resuming_ends_like_an_uninterrupted_run(
    tiny_model: Path, tmp_path: Path, settings: list[str]
) -> None:
    whole = Trial(tiny_model, tmp_path / "whole", recipe(*settings))
    uninterrupted = whole.run()

    def press(count: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    stopped = Trial(tiny_model, tmp_path / "parts", recipe(*settings), on_measure=press)
    with pytest.raises(Interrupted):
        stopped.run()
    # Pressed in the evaluation after the first epoch of 3 steps: the next step is the last.
    assert len(stopped.losses()) == 4
    assert (tmp_path / "parts" / "checkpoint-4").is_dir()

    resumed = Trial(tiny_model, tmp_path / "parts", recipe(*settings), [0.2, 0.3])
    tuning = resumed.run()
    assert tuning.steps == 9
    assert tuning.gradients == uninterrupted.gradients
    assert resumed.tunable.prove(tuning.gradients, tuning.best_step).unmoved == ()
    assert stopped.losses() + resumed.losses() == pytest.approx(whole.losses(), abs=1e-6)
    assert torch.allclose(resumed.flat(), whole.flat(), atol=1e-6)


ROUNDS = [range(12), range(4, 16), range(8, 20)]  # 12 examples, 2 steps an epoch


def test_every_epoch_has_its_own_examples_also_when_resumed_within_one(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    pack = tuning.pack

    def noted(batch: Sequence[Rendering], *args: Any, **kwargs: Any) -> Any:
        seen.append([rendering.example_id for rendering in batch])
        return pack(batch, *args, **kwargs)

    monkeypatch.setattr(tuning, "pack", noted)
    chosen = recipe("tune.micro_batch_size=8", "tune.stopping.metric=none")
    whole = Trial(tiny_model, tmp_path / "whole", chosen, rounds=ROUNDS)
    done = whole.run()
    # The two batches of an epoch are followed by the validation of 6.
    batches = [batch for batch in seen if len(batch) != 6]
    assert [
        {int(id.partition(":")[2]) for id in (*a, *b)}
        for a, b in zip(batches[::2], batches[1::2], strict=True)
    ] == [set(numbers) for numbers in ROUNDS]
    assert done.tokens == sum(len(renderings(20)[i].token_ids) for r in ROUNDS for i in r)

    def press(count: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    stopped = Trial(tiny_model, tmp_path / "parts", chosen, on_measure=press, rounds=ROUNDS)
    with pytest.raises(Interrupted):
        stopped.run()
    assert len(stopped.losses()) == 3  # within the second epoch
    resumed = Trial(tiny_model, tmp_path / "parts", chosen, rounds=ROUNDS)
    resumed.run()
    assert stopped.losses() + resumed.losses() == pytest.approx(whole.losses(), abs=1e-6)
    assert torch.allclose(resumed.flat(), whole.flat(), atol=1e-6)


def test_cached_states_serve_epochs_of_their_own_examples(tiny_model: Path, tmp_path: Path) -> None:
    def trained(cache: str) -> tuple[Trial, Tuning]:
        chosen = recipe("tune.layers=top:1", f"tune.cache={cache}")
        trial = Trial(tiny_model, tmp_path / cache, chosen, rounds=ROUNDS)
        return trial, trial.run()

    (plain, _), (cached, tuning) = trained("never"), trained("always")
    assert tuning.cache.computed == 20  # of all epochs; those of validation are among them
    assert cached.losses() == pytest.approx(plain.losses(), abs=1e-5)


def test_a_resumed_run_keeps_its_patience_and_its_best_in_a_moved_folder(
    tiny_model: Path, tmp_path: Path
) -> None:
    patient = recipe("tune.stopping.patience=2", "tune.epochs=4")

    def press(count: int) -> None:
        if count == 2:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = Trial(tiny_model, tmp_path / "here", patient, [0.5, 0.4], on_measure=press)
    with pytest.raises(Interrupted):
        stopped.run()
    (tmp_path / "here").rename(tmp_path / "there")
    resumed = Trial(tiny_model, tmp_path / "there", patient, [0.4, 0.4])
    tuning = resumed.run()
    assert tuning.steps == 9
    assert tuning.stopped.startswith("early, at step 9")
    assert tuning.best_step == 3
    assert torch.equal(resumed.flat(), stopped.weights[0])


@pytest.mark.parametrize("measured", [[0.5, 0.4, 0.3], [0.3, 0.5, 0.4]], ids=["early", "whole"])
def test_resuming_after_the_end_trains_no_step_and_finds_the_best_in_a_moved_folder(
    tiny_model: Path, tmp_path: Path, measured: list[float]
) -> None:
    patient = recipe("tune.stopping.patience=2")
    first = Trial(tiny_model, tmp_path / "here", patient, list(measured))
    before = first.run()
    (tmp_path / "here").rename(tmp_path / "there")
    again = Trial(tiny_model, tmp_path / "there", patient, [])
    after = again.run()
    assert again.losses() == []
    assert (after.steps, after.best_step, after.stopped) == (
        before.steps,
        before.best_step,
        before.stopped,
    )
    assert torch.equal(again.flat(), first.flat())


def test_resuming_after_the_end_without_a_best_has_the_last_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    chosen = recipe("tune.stopping.metric=none", "tune.epochs=1")
    first = Trial(tiny_model, tmp_path, chosen)
    before = first.run()
    again = Trial(tiny_model, tmp_path, chosen, [])
    assert again.run().steps == before.steps
    assert again.losses() == []
    assert torch.equal(again.flat(), first.flat())
    assert again.tunable.prove().unmoved == ()


@pytest.mark.parametrize(
    ("preset", "precision"),
    [("auto", "float32"), ("article-top-layers", "float32"), ("article-top-layers", "bfloat16")],
)
def test_thirty_steps_from_cached_states_have_the_losses_of_the_plain_ones(
    tiny_model: Path, tmp_path: Path, preset: str, precision: str
) -> None:
    trials = []
    for cache in ("never", "always"):
        chosen = recipe(
            "tune.layers=top:1",
            "tune.epochs=10",
            f"tune.cache={cache}",
            f"model.precision={precision}",
            preset=preset,
        )
        trial = Trial(tiny_model, tmp_path / cache, chosen, [0.5] * 10)
        tuning = trial.run()
        assert (tuning.cache.used, tuning.steps) == (cache == "always", 30)
        trials.append(trial)
    plain, cached = trials
    tolerance = 1e-4 if precision == "float32" else 2e-2  # rounded otherwise in other batches
    assert cached.losses() == pytest.approx(plain.losses(), rel=tolerance)
    assert cached.losses()[-1] < cached.losses()[0] - 0.3
    before, after = ([m["eval_loss"] for m in t.log if "eval_loss" in m] for t in trials)
    assert after == pytest.approx(before, rel=tolerance)
    assert len(after) == 10


def test_what_is_measured_while_states_are_cached_is_the_complete_model(
    tiny_model: Path, tmp_path: Path
) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    generated: dict[str, list[Any]] = {"never": [], "always": []}
    for cache, said in generated.items():
        chosen = recipe("tune.layers=top:2", f"tune.cache={cache}")
        trial = Trial(tiny_model, tmp_path / cache, chosen)

        def generate(count: int, trial: Trial = trial, said: list[Any] = said) -> None:
            model = trial.tunable.model
            answer = model.generate(input_ids=ids, max_new_tokens=8, min_new_tokens=8)
            said.append(answer.tolist())

        trial.on_measure = generate
        trial.run()
    assert generated["always"] == generated["never"]
    assert len(generated["always"]) == 3


def test_adapters_over_cached_states_keep_their_layer_numbers(
    tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    trial = Trial(tiny_model, tmp_path / "run", recipe("tune.layers=top:1", "tune.cache=always"))
    trial.run()
    trial.tunable.model.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {name.split(".layers.")[1].split(".")[0] for name in saved} == {"2"}
    whole = source_at(tiny_model).model(torch.float32)
    loaded = PeftModel.from_pretrained(whole, tmp_path / "adapter").eval()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, trial.tunable.model(ids).logits)


def test_checkpoints_hold_what_is_trained_alone(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    top = recipe("tune.layers=top:1", preset="article-top-layers")
    trial = Trial(tiny_model, tmp_path, top)
    trial.run()
    file = next(tmp_path.glob("checkpoint-*/model.safetensors"))
    with safe_open(file, "pt") as saved:
        assert set(saved.keys()) == {name for name, _ in trial.tunable.trained()}
    state = json.loads((file.parent / "trainer_state.json").read_text())
    assert "EarlyStopping" in state["stateful_callbacks"]


def test_the_step_of_every_first_gradient_is_known_and_as_after_b_s(
    tiny_model: Path, tmp_path: Path
) -> None:
    trial = Trial(tiny_model, tmp_path, recipe("tune.warmup_ratio=0.2", "tune.epochs=1"))
    tuning = trial.run()
    assert tuning.gradients is not None
    first = tuning.gradients.first
    assert set(first) == {name for name, _ in trial.tunable.trained()}
    # The first of three steps warms up at a rate of zero.
    assert tuning.gradients.steps == 2
    assert {step for name, step in first.items() if "lora_B" in name} == {2}
    assert {step for name, step in first.items() if "lora_A" in name} == {3}


def test_what_no_gradient_reaches_in_an_epoch_ends_the_training_by_name(
    tiny_model: Path, tmp_path: Path
) -> None:
    def add_unused(model: Any) -> None:
        model.model.unused = torch.nn.Linear(2, 2, bias=False)

    chosen = recipe("tune.trainable=[model.unused.*]")
    trial = Trial(tiny_model, tmp_path, chosen, on_load=add_unused)
    with pytest.raises(KilotuneError, match=r"no gradient reached in \d steps: .*model\.unused"):
        trial.run()
    assert len(trial.losses()) == 3  # of nine


def test_a_process_uses_one_card_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two_cards(arguments: TrainingArguments) -> torch.device:
        arguments._n_gpu = 2
        return torch.device("cpu")

    setup = cached_property(two_cards)
    setup.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", setup)
    found = tuning._arguments(TuningJob(recipe(), [], renderings(1), PAD, tmp_path), 4)
    assert (found.n_gpu, found.train_batch_size) == (1, 4)
