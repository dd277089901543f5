"""Runs as each schema version left them, under tests/records: they open, and newer ones do not.

Each has a run with augmentation, pseudo-labels and decoding searched for, and an ablation with its
final run; without weights, and of trials and tunings one each. Those of version 0 were written by
the last kilotune without versions, from the same data and seeds as those of version 1. Version 2
keeps codes and values in place of sentences: its runs are those of version 1, rewritten.
"""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilotune.cli.main import app
from kilotune.errors import KilotuneError
from kilotune.reports.build import build_report
from kilotune.runs import record
from kilotune.runs.catalogue import find_runs
from kilotune.runs.comparison import compare
from kilotune.runs.documents import (
    BaseScoresDocument,
    DataDocument,
    EnvironmentDocument,
    FindingsDocument,
    IdentityDocument,
    JudgedEnvironmentDocument,
    LogLine,
)
from kilotune.runs.outcomes import (
    AblationDocument,
    AdviceDocument,
    PseudoLabelsDocument,
    VerdictDocument,
    VerificationDocument,
)
from kilotune.runs.record import RunFolder
from kilotune.runs.schema_version import SCHEMA_VERSION, Document, DocumentFaultError
from kilotune.runs.stage_store import StageDocument
from kilotune.runs.trials import TrialDocument, TrialStore, kept
from kilotune.workflows.run import open_run
from tests.support.records import DOCUMENTS

RECORDS = Path(__file__).parents[1] / "records"
VERSIONS = range(SCHEMA_VERSION + 1)
PLACES = ("run", "ablation", "ablation/final")
# What tells how long something took. (An identity has a digest of the path of the base model.)
TIMED = (EnvironmentDocument, AblationDocument, PseudoLabelsDocument, TrialDocument, StageDocument)


def stored(version: int) -> Path:
    return RECORDS / f"schema-{version}"


def files(version: int) -> dict[str, type[Document]]:
    """Every document of the runs of a version, by its place."""
    found: dict[str, type[Document]] = {
        f"{place}/{kind.FILE}": kind
        for place in PLACES
        for kind in DOCUMENTS
        if kind is not JudgedEnvironmentDocument and (stored(version) / place / kind.FILE).exists()
    }
    for kind, pattern in ((TrialDocument, "*/trials/*"), (StageDocument, "*/pseudo-labels/*")):
        for path in stored(version).glob(pattern):
            found[path.relative_to(stored(version)).as_posix()] = kind
    return found


@pytest.fixture(params=VERSIONS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the runs of each version."""
    return shutil.copytree(stored(request.param), tmp_path / "runs")


def test_a_run_of_each_version_is_opened_listed_compared_and_has_its_report(folder: Path) -> None:
    run, final = folder / "run", folder / "ablation" / "final"
    for place in (run, final):
        opened = open_run(place)
        assert opened.verdict.name == "underfit"
        assert [system.name for system in opened.judgements][-1] == "tuned"
        page = build_report(RunFolder(place)).read_text(encoding="utf-8")
        assert opened.verdict.summary.partition(":")[0] in page
    pseudo = open_run(run).pseudo_labels
    assert pseudo is not None
    assert pseudo.lines()[1].startswith("12 pseudo-labels are tuned on")
    assert sorted(str(entry.fields["state"]) for entry in find_runs([folder])) == ["finished"] * 2
    both = compare(run, final)
    assert (both.same_data, both.validation) == (False, None)
    assert len(both.curves[0]) == 1
    result = CliRunner().invoke(app, ["runs", str(folder), "--json"])
    assert {one["verdict"] for one in json.loads(result.stdout)["runs"]} == {"underfit"}


def test_every_kind_of_document_is_kept_of_every_version() -> None:
    for version in VERSIONS:
        here = set(files(version).values())
        missing = {*DOCUMENTS, TrialDocument, StageDocument} - here - {JudgedEnvironmentDocument}
        # Which free texts alone have, and which are younger than all of these.
        assert missing == {BaseScoresDocument, AdviceDocument, VerificationDocument}


@pytest.mark.parametrize("place", sorted(files(0)))
def test_a_document_of_the_first_version_says_the_same_as_todays(place: str) -> None:
    kind = files(0)[place]
    # A trial is called by what decided it, which is not the same in every version.
    other = stored(SCHEMA_VERSION) / place
    if kind is TrialDocument:
        (other,) = other.parent.iterdir()
    first, today = (kind.parse(path.read_bytes()) for path in (stored(0) / place, other))
    assert kind.parse(first.text().encode()) == first
    assert json.loads(first.text())["schema_version"] == SCHEMA_VERSION
    if kind in (FindingsDocument, VerdictDocument):  # sentences then, today codes and values
        assert spoken(first) == spoken(today)
    elif kind not in (*TIMED, IdentityDocument):
        assert first == today


def spoken(document: Document) -> list[str]:
    if isinstance(document, VerdictDocument):
        return document.verdict.sentences()
    assert isinstance(document, FindingsDocument)
    return [str(finding) for finding in document.findings]


@pytest.mark.parametrize(
    ("kind", "value", "other"),
    [
        (VerdictDocument, '"answered-wrong"', '"of-tomorrow"'),
        (VerdictDocument, '"train"', '"other"'),
        (VerdictDocument, "0.0", '"a text"'),
        (FindingsDocument, '"scores-disagree"', '"of-tomorrow"'),
    ],
)
def test_sentences_are_made_of_codes_and_values_without_which_a_record_is_damaged(
    kind: type[Document], value: str, other: str
) -> None:
    raw = (stored(SCHEMA_VERSION) / "run" / kind.FILE).read_text()
    assert [sentence for sentence in spoken(kind.parse(raw.encode())) if sentence in raw] == []
    assert value in raw
    with pytest.raises(
        DocumentFaultError, match=r"^(findings: )?(no (phrase|finding) is called|'.* lacks a value)"
    ):
        kind.parse(raw.replace(value, other, 1).encode())


def test_a_finished_trial_is_found_again_by_its_recipe() -> None:
    folder = RunFolder(stored(SCHEMA_VERSION) / "ablation")
    store = TrialStore(folder / record.TRIALS, folder.read(DataDocument).fingerprint)
    (file,) = (folder / record.TRIALS).iterdir()
    trial = TrialDocument.parse(file.read_bytes()).trial
    assert store.find(folder.read_recipe(), trial.unit) == trial


@pytest.mark.parametrize("version", VERSIONS)
def test_a_log_of_each_version_is_read(version: int) -> None:
    log = RunFolder(stored(version) / "run").read_metrics()
    assert [line["step"] for line in log if "loss" in line] == list(range(1, 19))
    assert all("schema_version" not in line for line in log)


def newer(path: Path) -> None:
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "else": []}))


def test_a_record_of_a_newer_version_is_refused_in_one_line_that_says_by_which_it_is_read(
    tmp_path: Path,
) -> None:
    shutil.copytree(stored(SCHEMA_VERSION) / "run", run := tmp_path / "run")
    environment = run / record.ENVIRONMENT
    environment.write_text(environment.read_text().replace('"0.1.0"', '"7.8"'))
    for kind in DOCUMENTS:
        before = (run / kind.FILE).read_bytes() if (run / kind.FILE).exists() else None
        newer(run / kind.FILE)
        with pytest.raises(KilotuneError, match="is of schema version 3, and") as caught:
            RunFolder(run).read(kind)
        assert str(caught.value).startswith(f"{run}: {kind.FILE} ")
        assert "\n" not in str(caught.value)
        by = "a newer one" if kind.FILE == record.ENVIRONMENT else "7.8"
        assert caught.value.fix == f"Use the kilotune that made the run ({by}), or a later one"
        if before is not None:
            (run / kind.FILE).write_bytes(before)
    (run / record.METRICS).write_text('{"schema_version": 3, "loss": []}\n{"step": 1}\n')
    with pytest.raises(KilotuneError, match=r"metrics\.jsonl is of schema version 3"):
        RunFolder(run).read_metrics()
    (stage,) = (run / record.STAGES).iterdir()
    newer(stage)
    with pytest.raises(KilotuneError, match=rf"pseudo-labels/{stage.name} is of schema") as caught:
        kept(stage, StageDocument, "tuning")
    assert "7.8" in caught.value.fix


def test_a_run_of_a_newer_version_is_listed_as_unreadable_and_said_by_its_commands(
    tmp_path: Path,
) -> None:
    shutil.copytree(stored(SCHEMA_VERSION), tmp_path / "runs")
    newer(tmp_path / "runs" / "run" / record.DATA)
    states = {entry.folder.name: entry.fields["state"] for entry in find_runs([tmp_path / "runs"])}
    assert states == {"run": "unreadable", "final": "without a report"}
    result = CliRunner().invoke(app, ["report", str(tmp_path / "runs" / "run")])
    assert result.exit_code == 2
    assert "data.json is of schema version 3, and this kilotune reads them up to 2" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_version_that_is_no_number_is_damage(tmp_path: Path) -> None:
    for wrong in ('"2"', "null", "1.5"):
        (tmp_path / record.METRICS).write_text(f'{{"schema_version": {wrong}, "step": 1}}\n{{}}\n')
        with pytest.raises(KilotuneError, match=r"line 1 is damaged \(schema_version"):
            RunFolder(tmp_path).read_metrics()
    assert LogLine.parse(b'{"step": 1}').schema_version == SCHEMA_VERSION
