"""The safetensors files of a model folder as a mapping: a tensor is read when it is asked for."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open

from kilotune.errors import KilotuneError
from kilotune.models.hub import weight_files, weights_file
from kilotune.models.integrity import tensor_names

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Checkpoint(Mapping[str, torch.Tensor]):
    """The tensors in the safetensors files of a model folder, by name, read when asked for.

    Nothing is kept: asking again reads again.
    """

    def __init__(self, place: str) -> None:
        self.folder = checkpoint_folder(place)
        self._files = self._find()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.load([name])[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def load(
        self,
        names: Iterable[str],
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> dict[str, torch.Tensor]:
        """Those tensors. Where nothing is to be converted they are pages of the file itself.

        A file is opened anew for every call, so that pages go with the tensors that lie on them.
        """
        tensors = {}
        for path, members in self._by_file(names):
            with safe_open(path, "pt") as file:
                for name in members:
                    tensors[name] = self._read(file, name).to(device, dtype)
        return tensors

    def parameters(self) -> int:
        """How many numbers the checkpoint holds."""
        return sum(torch.Size(shape).numel() for shape in self.shapes().values())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by the headers of the files."""
        shapes: dict[str, tuple[int, ...]] = {}
        for path, members in self._by_file(self._files):
            with safe_open(path, "pt") as file:
                shapes |= {name: self._shape(file, name) for name in members}
        return shapes

    def _by_file(self, names: Iterable[str]) -> Iterable[tuple[Path, list[str]]]:
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self._files[name], []).append(name)
        return by_file.items()

    def _find(self) -> dict[str, Path]:
        """The file of each tensor. Raises KilotuneError where there are no safetensors."""
        files = indexed_files(self.folder)
        if files is None:
            raise KilotuneError(
                "only safetensors checkpoints can be streamed",
                where=str(self.folder),
                fix="Save the model with save_pretrained first, or set tune.streaming=never",
            )
        return files

    def _read(self, file: Any, name: str) -> torch.Tensor:
        return file.get_tensor(name)

    def _shape(self, file: Any, name: str) -> tuple[int, ...]:
        return tuple(file.get_slice(name).get_shape())


def indexed_files(folder: Path) -> dict[str, Path] | None:
    """The file of each tensor in the folder's one file, or in the parts of its index; None without.

    By what the files themselves hold: an index may be of another checkpoint.
    """
    file = weights_file(str(folder))
    if file is None or file.name not in (WHOLE, INDEX):
        return None
    return tensor_files(weight_files(str(folder)))


def tensor_files(paths: Iterable[Path]) -> dict[str, Path]:
    """The file of each tensor in the files `paths`. Raises KilotuneError for a damaged one."""
    return {name: path for path in paths for name in tensor_names(path)}


def checkpoint_folder(place: str) -> Path:
    """Of the model at `place`; a hub id's is fetched, as loading it whole would."""
    if Path(place).is_dir():
        return Path(place)
    return Path(snapshot_download(place, allow_patterns=["*.json", "model*.safetensors"]))
