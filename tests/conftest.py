"""What several test files need. Nothing here reaches a network."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")  # as the command line does before anything is loaded

# A shell's background jobs are born deaf to Ctrl-C, and nohup's to a terminal that is closed; tests
# do both.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Processes that test at the same time share the processor's cores. This is read when torch is
# imported: threads that wait for a core which another process has are slower than one thread.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
if WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that began one last would go on alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama of 3 layers."""
    from tests.support.tiny import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real small model; `make test` has fetched it."""
    from kilotune.models.builtin import builtin_folder

    return builtin_folder("smollm2")


@pytest.fixture(autouse=True, scope="module")
def one_thread_for_what_tests_share(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a file of tiny models makes once is made by as many threads as its tests: to the bit."""
    import torch

    threads, here = torch.get_num_threads(), request.node.path
    of_real = {item.path for item in request.session.items if _real(item)}
    torch.set_num_threads(threads if here in of_real else 1)
    yield
    torch.set_num_threads(threads)


def _real(item: pytest.Item) -> bool:
    return bool(item.get_closest_marker("slow") or item.get_closest_marker("long"))


@pytest.fixture(autouse=True)
def one_thread_for_tiny_models(request: pytest.FixtureRequest) -> Iterator[None]:
    """Threads only wait for each other on matrices this small, worse on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(threads if _real(request.node) else 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def cached_states(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder under which tests cache hidden states: never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr("kilotune.training.state_store.cache_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def few_general_prompts() -> Iterator[None]:
    """What a run asks to see what was forgotten: one prompt of each kind and language."""
    from kilotune.evaluation.forgetting import general_prompts

    few = general_prompts()[::10]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kilotune.session.retention.general_prompts", lambda: few)
        yield


@pytest.fixture(scope="session", autouse=True)
def judged_by_validation_alone() -> Iterator[None]:
    """No run of another test tunes on folds too: that takes several times as long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kilotune.session.out_of_fold.ENOUGH", 0)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_encoder_of_the_machine() -> Iterator[None]:
    """Whether a sentence encoder was fetched here must change no run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kilotune.session.baseline_systems.fetched_encoder", lambda: None)
        yield


@pytest.fixture(scope="session")
def tiny_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of closed labels; copy it before changing it."""
    import kilotune
    from kilotune.recipe.load import load_recipe
    from tests.support.tiny import labelled_csv

    folder = tmp_path_factory.mktemp("tiny_run")
    data = labelled_csv(folder / "films.csv", 80)
    overrides = [
        "model.precision=float32", "tune.learning_rate=1e-2", "tune.epochs=4",
        "judge.bootstrap_samples=50",
    ]  # fmt: skip
    settings = {"data": {"train": str(data)}, "model": {"name": str(tiny_model)}}
    recipe = load_recipe(settings=settings, overrides=overrides)
    return kilotune.run(recipe, folder / "run").folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A labelled file of 40 rows."""
    from tests.support.tiny import labelled_csv

    return labelled_csv(tmp_path / "films.csv")
