"""A run on disk: one folder of plain files, the source of truth, written by one process."""

import hashlib
import json
import math
import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from kilotune import distributed
from kilotune.data.example import Example, Part
from kilotune.data.files.claims import held
from kilotune.data.files.writers import (
    PART,
    append_line,
    remove_leftovers,
    write_atomically,
    written_atomically,
)
from kilotune.data.images.pixels import digest
from kilotune.errors import KilotuneError, some
from kilotune.recipe.advice import RECIPE as RECIPE
from kilotune.recipe.advice import advised
from kilotune.recipe.difference import binding_settings
from kilotune.recipe.functions import PARTS
from kilotune.recipe.load import dump_recipe, load_recipe
from kilotune.recipe.locations import check_moves
from kilotune.recipe.schema import Recipe
from kilotune.runs.documents import (
    ANSWERS,
    ANSWERS_WITH_TEXTS,
    DataDocument,
    EnvironmentDocument,
    FindingsDocument,
    FoldsDocument,
    IdentityDocument,
    LogLine,
)
from kilotune.runs.schema_version import (
    Document,
    DocumentFaultError,
    NewerDocumentError,
    reason,
    too_new,
)

DATA, ENVIRONMENT = DataDocument.FILE, EnvironmentDocument.FILE
FINDINGS, METRICS, JUDGEMENT = FindingsDocument.FILE, "metrics.jsonl", "judgement.json"
PREDICTIONS, PROOF, VERDICT = "predictions.parquet", "freeze_proof.json", "verdict.json"
AUGMENTATION, VALIDATION = "augmentation.json", "validation.parquet"
IDENTITY = IdentityDocument.FILE
# Of an ablation: how far it is, the best recipe so far, its trials, and the run that ends it.
ABLATION, BEST, TRIALS, FINAL = "ablation.json", "best.yaml", "trials", "final"
FOLDS = FoldsDocument.FILE
# Of pseudo-labels: what came of them, and what each tuning for them said.
PSEUDO_LABELS, STAGES = "pseudo_labels.json", "pseudo-labels"
ADVICE = "advice.json"  # only where there is a validation part
# The tunings on folds, where validation is too small to judge by, and all that they answered.
OUT_OF_FOLD, HELD_OUT = "out-of-fold", "out_of_fold.parquet"
DECODING = "decoding.json"  # only where ways of decoding were tried
VERIFICATION = "verification.json"  # only where an export was verified
REPORT, CHECKPOINTS, REFIT, LOCK = "report.html", "checkpoints", "refit", "run.lock"
# Written before training or in it, and by nothing that comes later.
MADE_FIRST = {RECIPE, DATA, AUGMENTATION, FOLDS, IDENTITY, METRICS}

# What decides what a run does: code, presets, chat templates, tables of words.
SOURCES = (".py", ".yaml", ".jinja", ".toml")
PACKAGES = ("kilotune", "torch", "transformers", "peft", "accelerate", "scikit-learn")


D = TypeVar("D", bound=Document)


class RunFolder:
    """The folder of one run. Every file is written to a temporary name and renamed.

    Of processes that train together the leader alone writes; what the others write goes nowhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = distributed.leads()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def begun(self) -> bool:
        """Whether more is there than what a process leaves that is killed before its first record.

        That of an ablation's folds comes before its recipe: they tell it from a run.
        """
        names = [path.name for path in self.path.iterdir()] if self.path.is_dir() else []
        return any(name not in (LOCK, FOLDS) and not PART.fullmatch(name) for name in names)

    @property
    def judged(self) -> bool:
        """Whether the run came to its verdict: its weights are there to be used."""
        return (self / VERDICT).exists()

    @property
    def finished(self) -> bool:
        """Whether nothing of the run is left to be done: it is judged, and has its report."""
        return self.judged and (self / REPORT).exists()

    @property
    def ablation(self) -> bool:
        """Whether it is the folder of an ablation, and not of a single run."""
        return (self / FOLDS).exists()

    def check_finished(self) -> None:
        """Raise KilotuneError for a run that did not come to its verdict."""
        if not self.judged:
            raise KilotuneError(
                "the run is not finished",
                where=str(self.path),
                fix=f"Go on with it: {advised('resume', self.path)}",
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the run's one lock. Raises KilotuneError while another process holds it."""
        with held(self / LOCK, self.path) if self.writes else nullcontext():
            if self.writes:
                remove_leftovers(self.path)
            yield

    def write(self, document: Document) -> None:
        """Write a document to the file that it is called by."""
        if self.writes:
            write_atomically(self / document.FILE, document.text() + "\n")

    def read(self, kind: type[D]) -> D:
        """Read a document, of today's or an older schema version.

        Raises KilotuneError when it is not there, cut, of another form, or of a newer version.
        """
        name = kind.FILE
        try:
            return kind.parse((self / name).read_bytes())
        except FileNotFoundError as error:
            raise self.unreadable(name, "is missing") from error
        except DocumentFaultError as error:
            raise self.unreadable(name, f"is damaged ({error})") from error
        except NewerDocumentError as error:
            raise too_new(name, self.path, error) from error

    def read_if_there(self, kind: type[D]) -> D | None:
        """The same; None where there is no such file."""
        return self.read(kind) if (self / kind.FILE).exists() else None

    def unreadable(self, name: str, what: str) -> KilotuneError:
        """What is said of a record, with the way to another one."""
        fix, resume = "Restore it from a copy", advised("resume", self.path)
        if name in MADE_FIRST:
            fix += f", or make the run again: {advised('run', self / RECIPE)}"
        elif (self / VERDICT).exists():
            fix += f", or delete it and {VERDICT} to have both recreated: {resume}"
        elif (self / name).exists():
            fix += f", or delete it to have it recreated: {resume}"
        else:
            fix = f"The run is not finished; go on with it: {resume}"
        return KilotuneError(f"{name} {what}", where=str(self.path), fix=fix)

    def note_identity(self, **parts: Any) -> None:
        """Add to what the run is known by: digests of what it is of, and its settings."""
        if self.writes:
            self.write(IdentityDocument(**{**self.read_identity(), **parts}))

    def read_identity(self) -> dict[str, Any]:
        """The same by part; nothing in the folder of an earlier version's run.

        Raises KilotuneError when it is damaged.
        """
        if found := self.read_if_there(IdentityDocument):
            return found.known()
        if (environment := self.read_if_there(EnvironmentDocument)) and environment.identity:
            raise self.unreadable(IDENTITY, "is missing")
        return {}

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe, so that `kilotune run RUN/recipe.yaml` repeats the run."""
        if self.writes:
            write_atomically(self / RECIPE, dump_recipe(recipe, self.path))

    def read_recipe(
        self,
        *,
        trust_code: bool = False,
        runs: Collection[str] = PARTS,
        moved: Sequence[str] = (),
    ) -> Recipe:
        """The recipe as it was resolved, but for what was `moved`, as `data.train=FILE`.

        A run's folder is data: raises KilotuneError for code that its recipe names in the parts
        `runs`, which the caller would run, unless `trust_code`; and for another setting in `moved`
        than a path.
        """
        check_moves(moved, self.path)
        if not (self / RECIPE).exists():
            if not self.path.exists():
                raise KilotuneError(
                    "no such folder",
                    where=str(self.path),
                    fix="Check the path; if it was stopped before it began, start it again",
                )
            if self.path.is_dir() and not self.begun:
                raise KilotuneError(
                    "the run was stopped before anything was written",
                    where=str(self.path),
                    fix=f"Start it again: kilotune run ... --out {self.path}",
                )
            raise KilotuneError(
                "not a run folder", where=str(self.path), fix="Give the folder of a run"
            )
        recipe = load_recipe(self / RECIPE, overrides=moved, trust_code=trust_code, runs=runs)
        self._check_settings(recipe)
        return recipe

    def note_moves(self, moved: Sequence[str]) -> None:
        """Write the recipe, if there is one, with what was `moved`, as `read_recipe` takes it."""
        if moved and (self / RECIPE).exists():
            self.write_recipe(self.read_recipe(runs=(), moved=moved))

    def _check_settings(self, recipe: Recipe) -> None:
        """Raise KilotuneError where the recipe is not the one that the run was begun with.

        Runs of earlier versions did not keep its settings.
        """
        kept, now = self.read_identity().get("settings", {}), binding_settings(recipe)
        changed = [
            f"{name} was {kept[name]}, is {value}"
            for name, value in now.items()
            if name in kept and kept[name] != value
        ]
        if changed:
            raise KilotuneError(
                f"not the recipe that the run was begun with: {some(changed)}",
                where=str(self / RECIPE),
                fix="Put it back; for another recipe, start another run: kilotune run RECIPE",
            )

    def append_metrics(self, line: Mapping[str, float]) -> None:
        """Add one line to the training log, behind its last whole one."""
        if self.writes:
            append_line(self / METRICS, LogLine.model_validate(dict(line)).text(indent=None))

    def read_metrics(self) -> list[dict[str, float]]:
        """The training log; a step logged twice (by a resumed run) counts as it was last.

        What a killed process left of a last line counts for nothing. Raises KilotuneError for
        another line that is damaged, and where a run that came to its verdict has no log.
        """
        path = self / METRICS
        raw = path.read_bytes() if path.exists() else b""
        try:
            found = [_log_line(line) for line in raw.split(b"\n")[:-1]]
        except NewerDocumentError as error:
            raise too_new(METRICS, self.path, error) from error
        if found and isinstance(found[-1], str):
            found.pop()
        by_key = {}
        for number, line in enumerate(found, 1):
            if isinstance(line, str):
                raise KilotuneError(
                    f"line {number} is damaged ({line})",
                    where=str(path),
                    fix="Take it out of the file, or restore the file from a copy",
                )
            by_key[line["step"], "eval_loss" in line, "loss" in line] = line
        if not by_key and (self / VERDICT).exists():
            raise self.unreadable(METRICS, "is empty" if path.exists() else "is missing")
        return list(by_key.values())

    def write_predictions(self, rows: Sequence[Mapping[str, Any]], name: str = PREDICTIONS) -> None:
        """Write judged examples, one a row, as Parquet: of the test, VALIDATION or HELD_OUT."""
        if not self.writes:
            return
        with written_atomically(self / name) as part:
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), part)

    def read_predictions(self, name: str = PREDICTIONS) -> list[dict[str, Any]]:
        """The judged examples. Raises KilotuneError when they are not there, cut, or not whole."""
        try:
            raw = (self / name).read_bytes()
        except FileNotFoundError as error:
            raise self.unreadable(name, "is missing") from error
        try:
            file = pq.ParquetFile(pa.BufferReader(raw))
            rows: list[dict[str, Any]] = file.read().to_pylist()
            known = ANSWERS if name == HELD_OUT else ANSWERS_WITH_TEXTS
            known.validate_python(rows, strict=True)
        except ValidationError as error:
            raise self.unreadable(name, f"is damaged ({reason(error)})") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.unreadable(name, "is damaged (no Parquet)") from error
        return rows


def _log_line(raw: bytes) -> dict[str, float] | str:
    """A line of the training log, its nulls as the NaN they were; or what is wrong with it."""
    try:
        line = LogLine.parse(raw).content()
    except DocumentFaultError as error:
        return str(error)
    return {name: math.nan if value is None else value for name, value in line.items()}


def create_run(out: Path | None, name: str) -> RunFolder:
    """A new folder: `out`, else `runs/DATE-NAME`, numbered where that is taken.

    Raises KilotuneError when `out` holds anything already: nothing is ever overwritten.
    """
    if out is not None:
        check_new(out)
        out.mkdir(parents=True, exist_ok=True)
        return RunFolder(out)
    stem = f"{datetime.now():%Y-%m-%d}-{name}"
    for number in range(1, 10_000):
        path = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return RunFolder(path)
    raise KilotuneError("too many runs of this name today", where=stem, fix="Give --out")


def check_new(out: Path) -> None:
    """Raise KilotuneError if `out` is a file, or a folder with anything in it.

    What is left of a run that was killed before its first record is nothing.
    """
    if (out.exists() or out.is_symlink()) and (not out.is_dir() or RunFolder(out).begun):
        resume = f", or go on with it: {advised('resume', out)}" if (out / RECIPE).exists() else ""
        raise KilotuneError(
            "exists already and is left as it is",
            where=str(out),
            fix=f"Choose another place{resume}",
        )


def fingerprint(examples: Iterable[Example]) -> str:
    """SHA-256 over ids, messages with their images, labels and groups: the same data alone."""
    digest = hashlib.sha256()
    for example in examples:
        turns = [(message.role, *map(_identity, message.parts)) for message in example.messages]
        content = (example.id, turns, example.label, example.group)
        digest.update(json.dumps(content, ensure_ascii=False).encode())
    return digest.hexdigest()


def _identity(part: Part) -> str | list[str]:
    """A part of a message: of an image its content, and not the folder it lies in."""
    if isinstance(part, str):
        return part
    return [part.source, digest(part).hex()]


def environment(
    started: str | None = None,
    seconds: Mapping[str, float] | None = None,
    tokens: Mapping[str, int] | None = None,
) -> EnvironmentDocument:
    """The machine and the versions that a run is made with, now unless it `started` before."""
    return EnvironmentDocument(
        started=started or datetime.now().astimezone().isoformat(timespec="seconds"),
        python=platform.python_version(),
        system=platform.platform(),
        processor=platform.machine(),
        cores=os.cpu_count(),
        packages={name: _version(name) for name in PACKAGES},
        code=code_digest(),
        identity=True,  # kept from here on, in a file of its own
        seconds=dict(seconds or {}),
        tokens=dict(tokens or {}),
    )


def code_digest() -> str:
    """SHA-256 over kilotune's own source files: the same code alone, released or not."""
    root = Path(distributed.__file__).parent
    made = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        # Sentences and examples decide nothing.
        if path.suffix in SOURCES and path.name not in ("en.toml", "examples.toml"):
            made.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return made.hexdigest()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
