"""Whether an exported model answers in another program as it was judged."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from kilotune.data.example import Example, references
from kilotune.errors import KilotuneError
from kilotune.evaluation.evidence import Resampling
from kilotune.evaluation.fidelity import Fidelity, Parting, near
from kilotune.evaluation.judgement import Judgement, judge_system
from kilotune.evaluation.task_metrics import reader
from kilotune.exports.finished import Finished, open_finished
from kilotune.exports.forms import describe, renew_card
from kilotune.exports.origin import is_of, read_origin
from kilotune.generation.answer import Prompting
from kilotune.generation.decoding import Generation, read_answer
from kilotune.models.tuned_weights import tuned_folder, tuned_generation
from kilotune.models.vision import load_vision
from kilotune.preparation.prepare import Prepared, prepare
from kilotune.progress import Progress, Silent
from kilotune.rendering.probe import chat_template
from kilotune.reports.build import build_report
from kilotune.runs.outcomes import VerificationDocument
from kilotune.runs.record import RunFolder
from kilotune.session.templates import limits_of
from kilotune.verification.programs import (
    Artefact,
    Program,
    Put,
    natural_program,
    open_program,
)
from kilotune.workflows.resuming import check_same_data


def verify(
    export: str | Path,
    run: str | Path | None = None,
    progress: Progress | None = None,
    *,
    program: str | None = None,
    at: str = "",
    examples: int | None = None,
    trust_code: bool = False,
    moved: Sequence[str] = (),
) -> Fidelity:
    """Put the test prompts of the finished `run` to `export` in another program, greedily.

    `program` is one of PROGRAMS, by default the one that the export is for; `at` the address of
    one that serves it already. Of the test prompts the first `examples` are put, by default all.
    `run` is looked for where it is not given: by the export's own record, among the folders here,
    in `runs` and beside it. The outcome is kept in the run's `verification.json`, its report, its
    card and that of the export.
    Raises KilotuneError where the run is not found or another, where the data have changed, and
    where the program is not there or cannot load the export.
    """
    progress, export = progress or Silent(), Path(export)
    if not export.exists():
        raise KilotuneError("no such folder or file", where=str(export), fix="Check the path")
    folder = run_of(export, None if run is None else Path(run))
    recipe = folder.read_recipe(trust_code=trust_code, moved=moved)
    finished = replace(open_finished(folder.path, trust_code=trust_code), recipe=recipe)
    prepared = prepare(recipe, Silent())
    check_same_data(folder, prepared)
    asked = tuple(prepared.parts.test)[:examples]
    name = program or ("llama.cpp" if at else natural_program(export))
    progress.stage(f"Loading {export} in {name}")
    before = psutil.Process().memory_info().rss
    opened = open_program(name, Artefact(export, finished, at))
    try:
        found = _verified(opened, finished, prepared, asked, progress)
        grown = max(0, psutil.Process().memory_info().rss - before)
    finally:
        opened.close()
    found = replace(found, export=export.resolve().name, memory=grown)
    if os.access(folder.path, os.W_OK):
        _record(folder, finished, export, found)
    else:  # an archived run
        progress.say(f"not kept: {folder.path} cannot be written to")
    return found


def run_of(export: Path, given: Path | None) -> RunFolder:
    """The run that `export` is of, which is `given` or looked for.

    Raises KilotuneError where it is not found, and where the given one is another.
    """
    origin = read_origin(export)
    if given is not None:
        folder = RunFolder(given)
        folder.check_finished()
        if origin is not None and not is_of(origin, folder):
            raise KilotuneError(
                f"an export of another run ({origin.run}), or of this one before it was made again",
                where=str(export),
                fix=f"Give that run: --run FOLDER; or export this one: kilotune export {given}",
            )
        return folder
    own = RunFolder(export.resolve().parent)
    if own.judged and tuned_folder(own.path) == export.resolve():
        return own
    found = [] if origin is None else [run for run in _near(export) if is_of(origin, run)]
    if not found:
        raise KilotuneError(
            "the run that it was exported from is not known here",
            where=str(export),
            fix=f"Say where it is: kilotune verify {export} --run RUN",
        )
    return found[0]


def _near(export: Path) -> Iterable[RunFolder]:
    """Judged runs in the working directory, in `runs`, and beside the export."""
    for place in (Path(), Path("runs"), export.resolve().parent, export.resolve().parent.parent):
        for path in sorted(place.glob("*")):
            if path.is_dir() and RunFolder(path).judged:
                yield RunFolder(path)


def _verified(
    program: Program,
    finished: Finished,
    prepared: Prepared,
    examples: Sequence[Example],
    progress: Progress,
) -> Fidelity:
    prompting = _prompting(finished, prepared)
    rows = {row["id"]: row for row in finished.folder.read_predictions()}
    stops, endings = set(prompting.generation.eos_token_id), finished.decoding.stop_strings
    tokenizer = prompting.template.tokenizer
    apart, differences, said = [], [], []
    tokens, seconds = 0, 0.0
    judged_ids = prompting.token_ids(examples)
    progress.stage(f"Asking {program.title}")
    with progress.bar("answering", len(examples)) as bar:
        for example, ids in zip(examples, judged_ids, strict=True):
            put = program.put(prompting.worded(example).prompt)
            started = time.perf_counter()
            made = program.answer(put)
            seconds += time.perf_counter() - started
            tokens += len(made)
            if tuple(put.token_ids) != tuple(ids):
                apart.append(example.id)
            answer, row = read_answer(tokenizer, made, stops, endings), rows[example.id]
            said.append(answer)
            if answer.text != row["tuned_output"]:
                before = _judged_ids(row, tokenizer)
                differences.append(_difference(program, put, answer, row, before))
            bar.advance(1)
    again = _judged(prepared, examples, [answer.text for answer in said], finished)
    earlier = _judged(
        prepared, examples, [rows[example.id]["tuned_output"] for example in examples], finished
    )
    return Fidelity(
        program=program.title,
        export="",
        form=program.form,
        prompts=len(examples),
        apart=tuple(apart),
        differences=tuple(differences),
        judged=earlier.figures,
        figures=again.figures,
        tokens=tokens,
        seconds=round(seconds, 3),
        size=program.size,
        memory=0,
        near=near(finished.dtype),
        quantised=program.quantised,
        sampled=finished.decoding.sampling["temperature"] > 0,
        samples=not program.greedy and finished.decoding.sampling["temperature"] == 0,
    )


def _prompting(finished: Finished, prepared: Prepared) -> Prompting:
    """How the run put its prompts, without its model."""
    recipe, source = finished.recipe, finished.source
    pictured = bool(prepared.pictured)
    vision = load_vision(source, needed=pictured) if pictured else None
    template = chat_template(
        finished.template.tokenizer, arguments=recipe.model.template_arguments, pictures=vision
    )
    return Prompting(
        template,
        finished.wording,
        tuned_generation(finished.tuned),
        recipe.data.max_length,
        recipe.seed,
        limits_of(source.config),
    )


def _judged_ids(row: dict[str, Any], tokenizer: Any) -> list[list[int]]:
    """The token ids of a judged answer, or what they may have been, of runs that kept none."""
    if kept := row.get("tuned_token_ids"):
        return [kept]
    texts = (f"{lead}{row['tuned_output']}" for lead in ("", " ", "\n"))
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def _difference(
    program: Program, put: Put, said: Generation, row: dict[str, Any], judged: list[list[int]]
) -> Parting:
    """Where an answer parts from the judged one, whose tokens are one of `judged`."""
    places = [_parting(ids, said.token_ids) for ids in judged]
    place = max(places)
    found = Parting(row["id"], row["tuned_output"], said.text, token=place)
    next_ = {
        ids[place] for ids in judged if len(ids) > place and _parting(ids, said.token_ids) == place
    }
    if not next_:  # it ended there, at the length limit
        return found
    return replace(found, gap=program.behind(put, said.token_ids[:place], next_))


def _parting(ids: Sequence[int], others: Sequence[int]) -> int:
    """Where two sequences part, or the shorter one ends."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(ids), len(others)))


def _judged(
    prepared: Prepared, examples: Sequence[Example], texts: Sequence[str], finished: Finished
) -> Judgement:
    read = reader(prepared.task, prepared.labels, finished.wording)
    recipe = finished.recipe
    return judge_system(
        "tuned",
        prepared.task,
        references(examples),
        [read(text) for text in texts],
        prepared.labels,
        settings=Resampling(samples=recipe.judge.bootstrap_samples, seed=recipe.seed),
    )


def _record(folder: RunFolder, finished: Finished, export: Path, found: Fidelity) -> None:
    """Keep the outcome where people read of the run and of the export."""
    with folder.writing():
        known = folder.read_if_there(VerificationDocument) or VerificationDocument(found=())
        folder.write(known.with_(found))
        build_report(folder)
        describe(folder, finished)
    renew_card(finished, export)
