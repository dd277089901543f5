import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from kilotune.errors import KilotuneError
from kilotune.models.freeze import Tunable
from kilotune.models.source import source_at
from kilotune.models.streaming import StreamedLayer, load_streamed
from kilotune.progress import Silent
from kilotune.recipe.schema import LoraSettings, TopLayersSettings, TuneSettings
from kilotune.rendering.label_mask import Rendering
from kilotune.training import state_check, state_computer
from kilotune.training.activations import Activations, open_activations
from kilotune.training.agreement import fast_path
from kilotune.training.batches import Batch, collate
from kilotune.training.loss import LabelledLoss
from kilotune.training.packing import pack
from kilotune.training.state_store import StateWriter, key_of
from kilotune.training.tuning_result import CacheUse
from tests.support.families import FAMILIES, perturb
from tests.support.random_models import random_model

PAD = 256
TOP = LoraSettings(learning_rate=1e-3, layers="top:2")


def renderings(count: int = 5, prefix: int = 0) -> list[Rendering]:
    """Of unequal lengths; the first `prefix` tokens are the same in all."""
    made = []
    for number in range(count):
        length = 6 + 3 * (number % 4)
        ids = [*range(prefix), *((37 * number + 7 * i) % 250 for i in range(length))]
        mask = [False] * (len(ids) - 2) + [True, True]
        made.append(Rendering(f"data:{number}", tuple(ids), tuple(mask), len(ids) - 2))
    return made


class Spoken(Silent):
    """Progress that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def opened(
    tunable: Tunable,
    settings: TuneSettings = TOP,
    texts: list[Rendering] | None = None,
    progress: Spoken | None = None,
    autocast: torch.dtype | None = None,
) -> tuple[Activations | None, CacheUse]:
    return open_activations(
        tunable,
        texts or renderings(),
        settings,
        pad_id=PAD,
        autocast=autocast,
        progress=progress or Spoken(),
    )


def perturbed(model: Any, settings: LoraSettings = TOP) -> Tunable:
    """With B at its zero start, A has no gradient and errors could hide."""
    tunable = Tunable(model, settings, seed=0)
    perturb(tunable)
    return tunable


def loss_and_gradient(model: Any, loss_of: Callable[[], torch.Tensor]) -> tuple[float, Any]:
    model.zero_grad()
    loss = loss_of()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def assert_same_step(tunable: Tunable, activations: Activations, batch: list[Rendering]) -> None:
    model = tunable.model

    def mean(inputs: Batch) -> torch.Tensor:
        return LabelledLoss(model).sum(model, inputs) / inputs.labelled_count()

    def padded() -> torch.Tensor:
        with activations.bypassed(model):
            return mean(collate(batch, PAD, activations.states))

    def packed() -> torch.Tensor:
        with activations.bypassed(model), fast_path(model):
            return mean(pack(batch, activations.states))

    loss, gradient = loss_and_gradient(model, lambda: mean(collate(batch, PAD)))
    for cached in (padded, packed):
        found, slopes = loss_and_gradient(model, cached)
        assert found == pytest.approx(loss, rel=1e-5)
        assert (slopes - gradient).norm() / gradient.norm() < 1e-5
    assert gradient.norm() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_loss_and_gradient_equal_the_uncached(family: str) -> None:
    tunable = perturbed(random_model(family))
    activations, use = opened(tunable)
    assert activations
    assert (use.used, use.below, use.computed) == (True, 2, 5)
    assert use.size == 4 * 32 * sum(len(r.token_ids) for r in renderings())
    assert_same_step(tunable, activations, renderings()[1:4])


@pytest.mark.slow
def test_cached_loss_and_gradient_equal_the_uncached_for_smollm2(smollm2: Path) -> None:
    settings = LoraSettings(learning_rate=1e-3, layers="top:6")
    tunable = perturbed(source_at(smollm2).model(torch.float32), settings)
    activations, use = opened(tunable, settings, renderings(prefix=20))
    assert activations
    assert use.below == 24
    assert_same_step(tunable, activations, renderings(prefix=20))


@pytest.mark.parametrize(
    ("layers", "below"), [("top:1", 3), ((1, 3), 1), ("all", 0)], ids=["top", "list", "all"]
)
def test_the_cache_begins_at_the_lowest_trained_layer(layers: Any, below: int) -> None:
    settings = LoraSettings(learning_rate=1e-3, layers=layers)
    progress = Spoken()
    activations, use = opened(Tunable(random_model("llama"), settings, 0), settings, None, progress)
    assert use.below == below
    assert (activations is None) == (below == 0)
    # That all layers are trained is what the recipe asked for, and not worth a line.
    assert bool(progress.lines) == (below > 0)


def test_packs_take_the_states_of_a_shared_beginning_from_one_example() -> None:
    tunable = perturbed(random_model("qwen2"))
    texts = renderings(3, prefix=40)
    activations, _ = opened(tunable, texts=texts)
    assert activations
    batch = pack(texts, activations.states)
    assert batch.hidden_states.shape == (1, 40 + sum(len(r.token_ids) - 40 for r in texts), 32)
    assert_same_step(tunable, activations, texts)


def test_the_cache_is_filled_through_packs_where_the_model_takes_them() -> None:
    texts = renderings(5, prefix=60)
    once = 60 + sum(len(r.token_ids) - 60 for r in texts)
    every = 5 * max(len(r.token_ids) for r in texts)
    found = []
    for attention in ("sdpa", "eager"):  # eager attention takes no packs
        model = random_model("llama")
        model.set_attn_implementation(attention)
        seen: list[int] = []
        model.model.layers[0].register_forward_pre_hook(
            lambda _module, args, seen=seen: seen.append(args[0].shape[:2].numel())
        )
        # Of no effect, but another place in the cache.
        model.config.update({"initializer_range": 0.02 if attention == "sdpa" else 0.03})
        activations, use = opened(Tunable(model, TOP, seed=0), texts=texts)
        assert activations
        assert use.computed == 5
        assert (once in seen, every in seen) == (attention == "sdpa", attention == "eager")
        found.append(torch.cat([activations.states(r) for r in texts]))
    packed, padded = found
    assert (packed - padded).norm() / padded.norm() < 1e-6


def test_states_are_computed_once_for_all_folds_and_trials() -> None:
    first = opened(Tunable(random_model("llama"), TOP, seed=0), texts=renderings(5))[1]
    fold = opened(Tunable(random_model("llama"), TOP, seed=1), texts=renderings(8)[2:])[1]
    again = opened(Tunable(random_model("llama"), TOP, seed=2), texts=renderings(8))
    assert [first.computed, fold.computed, again[1].computed] == [5, 3, 0]
    assert again[0]
    assert_same_step(perturbed(random_model("llama")), again[0], renderings(8))


def test_other_weights_layers_or_precision_have_states_of_their_own() -> None:
    base = Tunable(random_model("llama"), TOP, seed=0)
    opened(base)
    other = random_model("llama")
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1e-3
    higher = LoraSettings(learning_rate=1e-3, layers="top:1")
    wider = random_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e3})
    coarse = Tunable(random_model("llama").to(torch.bfloat16), TOP, 0)
    for changed, settings in ((Tunable(other, TOP, 0), TOP), (Tunable(wider, TOP, 0), TOP),
                              (Tunable(random_model("llama"), higher, 0), higher),
                              (coarse, TOP)):  # fmt: skip
        assert opened(changed, settings)[1].computed == 5
    upper = random_model("llama")
    with torch.no_grad():
        upper.model.layers[3].mlp.up_proj.weight[0, 0] += 1e-3
    assert opened(Tunable(upper, TOP, 0))[1].computed == 0


def test_trained_layers_in_float32_are_cached_under_autocast_as_they_are_trained() -> None:
    settings = TopLayersSettings(method="top_layers", learning_rate=1e-3, layers="top:2")
    tunable = Tunable(random_model("llama"), settings, seed=0)
    activations, use = opened(tunable, settings, autocast=torch.bfloat16)
    assert activations
    assert use.restart
    assert use.restart.gradient < 1e-5
    assert activations.states(renderings()[0]).dtype == torch.float32
    plain, _ = opened(tunable, settings)
    assert plain
    difference = activations.states(renderings()[0]) - plain.states(renderings()[0])
    assert 1e-4 < difference.abs().max() < 1e-1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def change(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def replace(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({key_of(renderings()[0]): torch.zeros(6, 32)}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, change, replace, empty])
def test_a_damaged_file_is_made_anew_and_said(
    damage: Callable[[Path], None], cached_states: Path
) -> None:
    tunable = perturbed(random_model("llama"))
    opened(tunable)
    (path,) = cached_states.rglob("*.safetensors")
    whole = path.read_bytes()
    damage(path)
    progress = Spoken()
    activations, use = opened(tunable, progress=progress)
    assert use.computed == 5
    assert any(line.startswith(f"{path} is damaged") for line in progress.lines)
    assert path.read_bytes() == whole
    assert activations
    assert_same_step(tunable, activations, renderings())


def test_the_file_is_plain_safetensors(cached_states: Path) -> None:
    from safetensors.torch import load_file

    activations, _ = opened(Tunable(random_model("llama"), TOP, seed=0))
    assert activations
    (path,) = cached_states.rglob("*.safetensors")
    loaded = load_file(path)
    assert loaded.keys() == {key_of(r) for r in renderings()}
    for rendering in renderings():
        assert torch.equal(loaded[key_of(rendering)], activations.states(rendering))
    assert {p.suffix for p in cached_states.rglob("*") if p.is_file()} == {".safetensors", ".lock"}


def test_the_size_is_said_before_and_a_limit_is_kept(cached_states: Path) -> None:
    size = opened(Tunable(random_model("llama"), TOP, seed=0))[1].size
    small = TOP.model_copy(update={"cache_limit_gb": (size - 1) / 1e9})
    progress = Spoken()
    activations, use = opened(Tunable(random_model("llama"), TOP, 0), small, progress=progress)
    assert activations is None
    assert use.reason.startswith("the states would take")
    assert progress.lines == [f"Without the hidden-state cache: {use.reason}"]
    must = small.model_copy(update={"cache": "always"})
    with pytest.raises(KilotuneError, match="the states would take"):
        opened(Tunable(random_model("llama"), TOP, 0), must)


def test_the_least_recently_used_make_room(cached_states: Path) -> None:
    models = [random_model("llama", rms_norm_eps=eps) for eps in (1e-6, 2e-6, 3e-6)]
    size = opened(Tunable(models[0], TOP, 0))[1].size
    two = TOP.model_copy(update={"cache_limit_gb": 2.7 * size / 1e9})
    (first,) = cached_states.rglob("*.safetensors")
    opened(Tunable(models[1], TOP, 0), two)
    opened(Tunable(random_model("llama", rms_norm_eps=1e-6), TOP, 0), two)
    progress = Spoken()
    opened(Tunable(models[2], TOP, 0), two, progress=progress)
    left = set(cached_states.rglob("*.safetensors"))
    assert len(left) == 2
    assert first in left
    assert sum("Removed" in line for line in progress.lines) == 1


def test_dropout_below_is_found_and_named() -> None:
    tunable = Tunable(random_model("llama", attention_dropout=0.1), TOP, seed=0)
    activations, use = opened(tunable)
    assert activations is None
    assert "model.layers.0.self_attn.attention_dropout" in use.reason


def test_never_computes_nothing(cached_states: Path) -> None:
    off = TOP.model_copy(update={"cache": "never"})
    assert opened(Tunable(random_model("llama"), TOP, 0), off)[0] is None
    assert list(cached_states.iterdir()) == []


def test_a_model_whose_upper_layers_look_at_lower_ones_is_not_cached() -> None:
    """The first check catches it: from layer 2 on it would train on something else."""
    model = random_model("llama")
    seen = {}
    model.model.layers[0].register_forward_hook(lambda _m, _i, out: seen.update(first=2 * out))
    model.model.layers[2].register_forward_hook(lambda _m, _i, out: out + seen["first"])
    activations, use = opened(Tunable(model, TOP, 0))
    assert activations is None
    assert "would differ by" in use.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_states_that_belong_to_other_tokens_are_found_whatever_the_rounding(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    write = StateWriter.write
    monkeypatch.setattr(
        StateWriter, "write", lambda self, name, states: write(self, name, states.roll(1, 0))
    )
    activations, use = opened(Tunable(random_model("llama").to(dtype), TOP, 0))
    assert activations is None
    assert use.reason.startswith("stored states would differ by")


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_many_layers_round_otherwise_is_held_against_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    """Packs round otherwise than padded batches: by 2e-2 and more in a deep model."""
    random_model("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(state_check, "TOLERANCE", {"bfloat16": 1e-4})
    if streamed:
        model = load_streamed(source_at(tmp_path), torch.bfloat16, 2)
    else:
        model = source_at(tmp_path).model(torch.bfloat16)
    weights = [p.clone() for p in model.parameters()]
    activations, use = opened(Tunable(model, TOP, 0), texts=renderings(prefix=60))
    assert activations, use.reason
    assert use.states
    assert 1e-4 < use.states < 2e-2
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert all(p.dtype == torch.bfloat16 for p in frozen)
    assert all(torch.equal(p, own) for p, own in zip(frozen, weights, strict=True))


def test_a_model_that_cannot_start_at_a_layer_says_so() -> None:
    model = random_model("llama")
    forward = model.model.layers[2].forward

    def demanding(hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if "forward" in vars(model.model.layers[0]):
            raise ValueError("layer 0 is missing")
        return forward(hidden_states, **kwargs)

    model.model.layers[2].forward = demanding
    activations, use = opened(Tunable(model, TOP, 0))
    assert activations is None
    assert use.reason == "the model cannot start at layer 2: layer 0 is missing"


def test_outside_the_with_the_model_is_complete() -> None:
    tunable = perturbed(random_model("llama"))
    activations, _ = opened(tunable)
    assert activations
    ids = torch.tensor([renderings()[2].token_ids])
    greedy = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=PAD)
    before = tunable.model.generate(input_ids=ids, generation_config=greedy)
    with activations.bypassed(tunable.model):
        assert_layers(tunable.model, replaced=2)
    assert_layers(tunable.model, replaced=0)
    assert torch.equal(tunable.model.generate(input_ids=ids, generation_config=greedy), before)


def assert_layers(model: Any, replaced: int) -> None:
    layers = model.get_base_model().model.layers
    assert sum("forward" in vars(layer) for layer in layers) == replaced


def fill(folder: str, answers: Any) -> None:
    from pathlib import Path

    from kilotune.training import state_store

    state_store.cache_folder = lambda: Path(folder)
    answers.put(opened(Tunable(random_model("llama"), TOP, seed=0))[1].computed)


@pytest.mark.slow
def test_of_two_processes_at_once_one_computes_and_both_train(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    both = [context.Process(target=fill, args=(str(tmp_path), answers)) for _ in range(2)]
    for process in both:
        process.start()
    computed = sorted(answers.get(timeout=300) for _ in both)
    for process in both:
        process.join()
    assert computed == [0, 5]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_a_part_of_a_killed_process_is_swept_up(cached_states: Path) -> None:
    tunable = Tunable(random_model("llama"), TOP, seed=0)
    opened(tunable)
    (path,) = cached_states.rglob("*.safetensors")
    (path.parent / ".123.part").write_bytes(b"half a file")
    assert opened(tunable, texts=renderings(8))[1].computed == 3
    assert not list(cached_states.rglob(".*.part"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_streamed_states_are_the_plain_ones_and_each_layer_is_read_once(
    tmp_path: Path, cached_states: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    random_model("qwen3").save_pretrained(tmp_path, max_shard_size="20KB")
    plain = perturbed(source_at(tmp_path).model(dtype))
    activations, before = opened(plain)
    assert activations
    (path,) = cached_states.rglob("*.safetensors")

    streamed = perturbed(load_streamed(source_at(tmp_path), dtype, 2))
    found, use = opened(streamed)
    assert found
    assert (use.computed, use.streamed, before.streamed) == (0, 2, 0)
    path.unlink()

    monkeypatch.setattr(state_computer, "TOKEN_BUDGET", 16)
    reads: list[int] = []
    held = StreamedLayer.held
    monkeypatch.setattr(
        StreamedLayer, "held", lambda self, device: reads.append(1) or held(self, device)
    )
    found, use = opened(streamed)
    assert found
    assert (use.computed, len(reads)) == (5, 2)
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    for rendering in renderings():
        states = found.states(rendering)
        difference = states.float() - activations.states(rendering).float()
        assert difference.norm() / states.float().norm() < tolerance
    if dtype == torch.float32:
        assert_same_step(streamed, found, renderings())


def test_a_streamed_run_that_cannot_cache_is_refused(tmp_path: Path) -> None:
    random_model("qwen3").save_pretrained(tmp_path)
    streamed = Tunable(load_streamed(source_at(tmp_path), torch.float32, 2), TOP, 0)
    small = TOP.model_copy(update={"cache_limit_gb": 1e-6})
    with pytest.raises(KilotuneError, match=r"cannot be used: the states would take 0\.0 MB"):
        opened(streamed, small)
