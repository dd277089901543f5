"""What the system refuses is one line, whichever library tells of it, and names the file."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kilotune.system.os_errors import as_os_error, naming, refusal

# Writes of a megabyte where a file may have 100,000 bytes, which is met as a full disk is.
WRITES = """
import resource, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from kilotune.data.files.writers import write_atomically, written_atomically
from kilotune.system.os_errors import refusal

def parquet(path):
    with written_atomically(path) as part:
        pq.write_table(pa.table({"a": np.random.rand(200_000)}), part)

def tensors(path):
    with written_atomically(path) as part:
        save_file({"a": torch.rand(200_000)}, part)

def pickled(path):
    with written_atomically(path) as part:
        torch.save({"a": torch.rand(200_000)}, part)

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
for name, write in {
    "x.parquet": parquet,
    "x.safetensors": tensors,
    "x.pt": pickled,
    "x.csv": lambda path: write_atomically(path, b"0" * 1_000_000),
    "gone/x.parquet": parquet,
    "gone/x.safetensors": tensors,
    "gone/x.pt": pickled,
    "gone/x.csv": lambda path: write_atomically(path, b"0"),
}.items():
    try:
        write(folder / name)
    except Exception as error:
        print(str(refusal(error)).replace(str(folder), "FOLDER"))
"""


def test_a_write_without_room_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    large = "File too large. Raise the limit on the size of files (ulimit -f), or choose"
    gone = "FOLDER/gone: the folder does not exist. Put it back if it was moved"
    lines = done.stdout.splitlines()
    assert [line.partition(" another place")[0] for line in lines[:4]] == [
        f"FOLDER/x.parquet: {large}",
        f"FOLDER/x.safetensors: {large}",
        "FOLDER/x.pt: could not be written completely; the disk may be full. "
        "Free some disk space, then run the same command again",
        f"FOLDER/x.csv: {large}",
    ]
    assert [line[: len(gone)] for line in lines[4:]] == [gone] * 4
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_with_and_without_a_name(tmp_path: Path) -> None:
    full = "No space left on device"
    room = f"{full}. Free some disk space, then run the same command again"
    assert (
        str(refusal(OSError(errno.ENOSPC, full, str(tmp_path / "x"))))
        == f"{tmp_path / 'x'}: {room}"
    )
    assert str(refusal(OSError(errno.ENOSPC, full))) == room


def test_memory_is_one_line_however_it_is_said() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch's own for accelerators."""

    said = [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ]
    assert {refusal(error).what for error in said} == {"not enough memory"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not match"),
        ValueError("No space left on device (os error 28)"),
        KeyError("x"),
        ImportError("No module named 'x'"),
        OSError("no number"),
        OSError(errno.EPIPE, "Broken pipe"),
        AssertionError(),
    ],
)
def test_our_own_bugs_stay_tracebacks(error: Exception) -> None:
    assert refusal(error) is None


def test_a_name_that_is_said_stays_and_other_errors_pass() -> None:
    other = OSError(errno.EACCES, "Permission denied", "/other")
    with pytest.raises(OSError, match="Permission") as caught, naming(Path("mine")):
        raise other
    assert caught.value.filename == "/other"
    with pytest.raises(RuntimeError, match="shapes"), naming(Path("mine")):
        raise RuntimeError("shapes do not match")
    found = as_os_error(RuntimeError("Parent directory /a/b does not exist."))
    assert found is not None
    assert (found.errno, found.filename) == (errno.ENOENT, "/a/b/file")


def test_a_current_folder_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: False)
    found = refusal(OSError(errno.ENOENT, "No such file or directory"))
    assert str(found) == "the current folder no longer exists. Change to another folder"


def test_a_folder_that_cannot_be_copied_whole_is_one_line(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "weights").touch()

    def full(source: str, target: str, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", target)

    out = tmp_path / "out"
    with pytest.raises(OSError, match="No space left") as caught, naming(out):
        shutil.copytree(tmp_path / "run", out, copy_function=full)
    said = "No space left on device. Free some disk space, then run the same command again"
    assert str(refusal(caught.value)) == f"{out}: {said}"
