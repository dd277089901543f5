"""The commands that are struck, each as small as it can be, and what they start from."""

import io
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.attack import zygote
from tests.attack.strikes import Strike
from tests.attack.zygote import Done
from tests.support.tiny import labelled_csv, write_tiny_model

SMALL = (
    "model.precision=float32", "tune.learning_rate=2e-2", "tune.epochs=4", "tune.batch_size=4",
    "tune.stopping.patience=9", "judge.bootstrap_samples=50", "judge.out_of_fold=never",
)  # fmt: skip
# LoRA on the top layers: what enters them is cached.
LORA = (*SMALL, "tune.layers=top:2", "tune.rank=16", "judge.forgetting=never")
UNCACHED = (*LORA, "tune.cache=never")
WHOLE_LAYERS = (*SMALL, "tune.layers=top:1", "tune.method=full")
ABLATION = (
    "model.precision=float32", "tune.learning_rate=1e-5", "tune.epochs=1", "tune.layers=top:1",
    "judge.bootstrap_samples=50", "judge.forgetting=never", "judge.out_of_fold=never",
    "ablation.folds=2",
    "ablation.factors={tune.learning_rate: [3.0e-2]}",
)  # fmt: skip
ROWS = 60
# 38 of the rows are trained on, in 10 steps an epoch.
THIRD = "checkpoint-30"


class Stage:
    """The files that all cases read, made when first asked for; and what commands come to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._undisturbed: dict[str, tuple[Path, Done]] = {}

    @cached_property
    def model(self) -> Path:
        return write_tiny_model(self.root / "model")

    @cached_property
    def films(self) -> Path:
        return labelled_csv(self.root / "films.csv", ROWS)

    @cached_property
    def unanswered(self) -> Path:
        """More rows than are answered together."""
        lines = [f"film {index} was {('great', 'awful')[index % 2]}" for index in range(150)]
        return _written(self.root / "unanswered.csv", ["text", *lines])

    @cached_property
    def faulty(self) -> Path:
        """Rows with what `check --fix` repairs and leaves out."""
        lines = [
            f"film {i} was caf\u00c3\u00a9 good {i},{('Good', 'bad')[i % 2]}" for i in range(30)
        ]
        return _written(self.root / "faulty.csv", ["text,label", *lines, lines[0], lines[1]])

    @cached_property
    def pictured(self) -> Path:
        """Rows with an image in each, one of them twice."""
        rows = [{"text": f"film {n}", "label": "ab"[n % 2], "image": _picture(n)} for n in range(4)]
        path = self.root / "pictured.parquet"
        pq.write_table(pa.Table.from_pylist([*rows, rows[0]]), path)
        return path

    @cached_property
    def finished(self) -> Path:
        """The folder of a finished run."""
        return self.undisturbed(SCENES["run"])[0] / "work" / "run"

    @cached_property
    def half(self) -> Path:
        """The folder of a run killed at the end of its third epoch, with two checkpoints."""
        scene = SCENES["run"]
        _, done = self.undisturbed(scene)
        third = next(n for n, line in enumerate(done.operations) if THIRD in line)
        case = self.case("half", scene)
        killed = self.do(scene.argv(self), case, Strike("audit", third))
        assert killed.struck, killed
        return case / "work" / "run"

    def case(self, name: str, scene: "Scene") -> Path:
        """A new folder for a case, with what its command starts from."""
        case = self.root / name
        for part in ("work", "cache"):
            (case / part).mkdir(parents=True, exist_ok=True)
        scene.before(self, case / "work")
        return case

    def undisturbed(self, scene: "Scene") -> tuple[Path, Done]:
        """The folder of the case in which nothing befell the scene's command, and its end."""
        if scene.name not in self._undisturbed:
            case = self.case(f"undisturbed-{scene.name}", scene)
            done = self.do(scene.argv(self), case)
            assert done.status in scene.ends, done
            self._undisturbed[scene.name] = case, done
        return self._undisturbed[scene.name]

    def do(
        self,
        argv: Sequence[str],
        case: Path,
        strike: Strike | None = None,
        file_limit: int | None = None,
    ) -> Done:
        """Run a command in the folder of a case."""
        return zygote.run(argv, case / "work", case / "cache", strike, file_limit)


Argv = Callable[[Stage], list[str]]


def _nothing(stage: Stage, work: Path) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Scene:
    """A command, what it writes, how it is gone on with, how it ends, what is there before.

    `like` names the scene that it comes to the same as, if not to its own undisturbed end.
    """

    name: str
    out: str
    argv: Argv
    again: tuple[str, ...] = ()
    ends: tuple[int, ...] = (0,)
    before: Callable[[Stage, Path], None] = _nothing
    like: str = ""


def _written(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _picture(number: int) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(raw, "PNG")
    return raw.getvalue()


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _training(command: str, out: str, settings: Sequence[str]) -> Argv:
    def argv(stage: Stage) -> list[str]:
        start = [command, str(stage.films), "--model", str(stage.model), "--out", out]
        return [*start, *_set(settings)]

    return argv


def _of_run(*words: str) -> Argv:
    return lambda stage: [word.replace("RUN", str(stage.finished)) for word in words]


def _copy_half(stage: Stage, work: Path) -> None:
    shutil.copytree(stage.half, work / "run")
    shutil.copytree(stage.half.parents[1] / "cache", work.parent / "cache", dirs_exist_ok=True)


def _copy_finished(stage: Stage, work: Path) -> None:
    shutil.copytree(stage.finished, work / "run")
    (work / "run" / "report.html").unlink()


def _predict(stage: Stage) -> list[str]:
    return ["predict", str(stage.finished), str(stage.unanswered), "-o", "answered.csv"]


def _augment(out: str) -> Argv:
    return lambda stage: ["augment", str(stage.films), "--op", "swap", "--op", "delete", "-o", out]


def _fix(source: str, out: str) -> Argv:
    return lambda stage: ["check", str(getattr(stage, source)), "--fix", out]


SCENES = {
    scene.name: scene
    for scene in (
        Scene("run", "run", _training("run", "run", LORA), ("resume", "run")),
        Scene("layers", "run", _training("run", "run", WHOLE_LAYERS), ("resume", "run")),
        Scene("uncached", "run", _training("run", "run", UNCACHED), ("resume", "run")),
        Scene(
            "resume",
            "run",
            lambda _: ["resume", "run"],
            ("resume", "run"),
            before=_copy_half,
            like="run",
        ),
        Scene("ablate", "abl", _training("ablate", "abl", ABLATION), ("resume", "abl")),
        Scene("predict", "answered", _predict),
        Scene("augment", "more", _augment("more.csv")),
        Scene("workbook", "more", _augment("more.xlsx")),
        Scene("parquet", "more", _augment("more.parquet")),
        Scene("fix", "fixed", _fix("faulty", "fixed.csv"), ends=(0, 1)),
        Scene("pictures", "fixed", _fix("pictured", "fixed.jsonl"), ends=(0, 1)),
        Scene("convert", "films", lambda s: ["convert", str(s.films), "films.jsonl.gz"]),
        Scene("export", "merged", _of_run("export", "RUN", "--to", "merged", "-o", "merged")),
        Scene("vllm", "served", _of_run("export", "RUN", "--to", "vllm", "-o", "served")),
        Scene("report", "run", lambda _: ["report", "run"], before=_copy_finished),
    )
}

# Not one that starts another run beside a finished one.
SAID = re.compile(
    r"(?<!another): kilotune ((?:run|resume|report|ablate|predict) \S.*?)\.?$", re.MULTILINE
)


def advised(output: str) -> list[str] | None:
    """The command that an output says to go on with, if it says any."""
    found = SAID.findall(output)
    return str(found[-1]).split() if found else None
