"""The folder of hidden states by itself: what it holds, and what it refuses."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from kilotune.progress import Silent
from kilotune.rendering.label_mask import Rendering
from kilotune.training.state_store import StateFile, StateStore, key_of

WIDTH = 4


def text(*ids: int) -> Rendering:
    return Rendering("data:1", ids, (False,) * (len(ids) - 1) + (True,), len(ids) - 1)


def store(key: str = "a", limit: int = 10**6) -> StateStore:
    return StateStore(key, WIDTH, torch.float32, limit, Silent())


def put(into: StateStore, rendering: Rendering) -> StateFile:
    with into.locked(), into.writer([rendering]) as writer:
        writer.write(key_of(rendering), torch.full((len(rendering.token_ids), WIDTH), 7.0))
        return writer.finish()


def test_a_store_gives_what_was_put_under_its_own_key_alone(cached_states: Path) -> None:
    short, other = text(1, 2, 3), text(4, 5)
    put(store(), short)
    (file,) = store().open([key_of(short), key_of(other)])
    assert torch.equal(file.states(key_of(short)), torch.full((3, WIDTH), 7.0))
    assert store().size([short, other]) == 4 * WIDTH * 5
    assert store().open([key_of(other)]) == []
    assert store("b").open([key_of(short)]) == []


def test_a_file_that_was_moved_to_another_key_is_no_longer_taken(cached_states: Path) -> None:
    path = put(store(), text(1, 2, 3)).path
    put(store("b"), text(4, 5))
    shutil.copy(path, store("b").folder)
    assert store("b").open([key_of(text(1, 2, 3))]) == []
    assert not (store("b").folder / path.name).exists()
    assert path.exists()


def test_what_is_in_use_makes_no_room(cached_states: Path) -> None:
    kept, other = put(store(), text(1, 2, 3)), put(store("b"), text(4, 5))
    small = store(limit=kept.path.stat().st_size + 10)
    assert small.make_room(10, [kept]) == ""
    assert (kept.path.exists(), other.path.exists()) == (True, False)
    assert small.make_room(11, [kept]).startswith(f"{small.folder} holds 0.0 MB of this and other")
    assert kept.path.exists()


def test_a_disk_without_room_is_said(cached_states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with store().locked():
        usage = namedtuple("usage", "total used free")(0, 0, 10**6)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        assert store(limit=10**9).make_room(2 * 10**6, []) == (
            "the states need 2.0 MB on disk, and 1.0 MB are free"
        )
