"""The whole job, stage by stage: from a labelled file to a judged adapter."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from kilotune.data.checks import (
    Finding,
    check_examples,
    check_leakage,
    check_unseen_labels,
    stop_on_errors,
)
from kilotune.data.example import Example
from kilotune.data.normalise import load_examples
from kilotune.data.split import Split, split_examples
from kilotune.errors import KilotuneError
from kilotune.evaluate.baselines import majority, tfidf
from kilotune.evaluate.evidence import PairedTest, mcnemar
from kilotune.evaluate.judgement import Judgement, judge_system, quick_metrics
from kilotune.evaluate.metrics import parse_label
from kilotune.evaluate.verdict import Verdict, decide, remarks_on
from kilotune.experiments import record
from kilotune.experiments.record import RunFolder, create_run, fingerprint
from kilotune.generate.answer import Prompting
from kilotune.generate.decode import generation_config
from kilotune.models.export import save_tuned
from kilotune.models.freeze import Tunable
from kilotune.models.load import (
    Model,
    compute_dtype,
    load_model,
    load_tokenizer,
    locate,
    stop_ids,
    weight_dtype,
)
from kilotune.progress import Progress, Silent
from kilotune.recipe.schema import Recipe
from kilotune.render.checks import check_renderings, truncated
from kilotune.render.labels import Rendering, render
from kilotune.render.template import ChatTemplate, chat_template, fit_prompt
from kilotune.report.build import build_report
from kilotune.train.trainer import Tuning, tune

INSTRUCTION = "Classify the text. Answer with one of these labels and nothing else: {labels}."

Files = tuple[list[Example], list[Example] | None, list[Example] | None]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its folder, what it found, where its weights and its report are."""

    folder: Path
    verdict: Verdict
    judgements: tuple[Judgement, ...]
    tuned_against_base: PairedTest
    weights: Path
    report: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before any model is loaded. The examples carry the instruction."""

    recipe: Recipe
    findings: tuple[Finding, ...]
    parts: Split
    labels: tuple[str, ...]
    instruction: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Answers:
    """The labels a system gave to some examples; what it said, and how often it stopped itself."""

    predictions: tuple[str, ...]
    texts: tuple[str, ...] = ()
    stopped: float | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """Every system on the same examples."""

    examples: tuple[Example, ...]
    answers: dict[str, Answers]
    judgements: dict[str, Judgement]


def run(recipe: Recipe, out: Path | None = None, progress: Progress | None = None) -> Run:
    """Do the whole job of `recipe` in a new folder (`out`, else one under `runs/`).

    Nothing is written before the data and the model's name are known to be usable. Raises
    KilotuneError for unusable input; after Ctrl-C during training a checkpoint is there to
    `resume` from.
    """
    progress = progress or Silent()
    if out is not None:
        record.check_new(out)
    prepared = prepare(recipe, progress)
    source = locate(recipe.model)
    folder = create_run(out, recipe.data.train.stem)
    with folder.writing():
        folder.write_recipe(prepared.recipe)
        folder.write_json(record.DATA, _data_record(prepared))
        return _run_stages(prepared, source, folder, progress)


def resume(path: Path, progress: Progress | None = None) -> Run:
    """Go on with the stopped run in `path`, from its last checkpoint.

    Raises KilotuneError when it is finished already, or when its data have changed.
    """
    folder = RunFolder(path)
    recipe = folder.read_recipe()
    again = f"kilotune run {path / record.RECIPE}"
    if folder.finished:
        raise KilotuneError("the run is finished", where=str(path), fix=f"Start another: {again}")
    progress = progress or Silent()
    prepared = prepare(recipe, progress)
    if prepared.fingerprint != folder.read_json(record.DATA)["fingerprint"]:
        raise KilotuneError(
            "the data have changed since the run began",
            where=str(recipe.data.train),
            fix=f"Restore them, or start a new run: {again}",
        )
    with folder.writing():
        return _run_stages(prepared, locate(recipe.model), folder, progress)


def _run_stages(prepared: Prepared, source: str, folder: RunFolder, progress: Progress) -> Run:
    clock = _Clock()
    progress.stage("Loading the model")
    tunable, prompting = load(prepared, source)
    train, validation, findings = render_parts(prepared, prompting.template, progress)
    folder.write_json(record.FINDINGS, findings)
    trained, total = tunable.parameter_counts()
    progress.say(f"{prepared.recipe.model.name}: training {trained:,} of {total:,} parameters")
    clock.lap("load")

    progress.stage("Baseline: the base model's own answers on validation")
    with tunable.as_base() as model:
        base = answer(prepared, prompting, model, prepared.parts.validation, progress, "base model")
    progress.say(_base_line(base, prepared.parts.validation))
    clock.lap("baseline")

    progress.stage("Tuning")
    tuning = tune_model(prepared, prompting, tunable, train, validation, folder, progress)
    progress.say(f"Stopped {tuning.stopped}; best at step {tuning.best_step}")
    proof = tunable.prove()
    progress.say(f"Frozen tensors unchanged: {len(proof.frozen)}; trained: {len(proof.moved)} moved")
    folder.write_json(record.PROOF, proof)
    clock.lap("tune")

    progress.stage("Judging: the held-out test is opened now, once")
    parts = prepared.parts
    on_validation = judge(prepared, prompting, tunable, parts.validation, parts.train, progress, base)
    known = (*parts.train, *parts.validation)
    on_test = judge(prepared, prompting, tunable, parts.test, known, progress)
    verdict = reach_verdict(prepared, prompting, tunable, tuning, on_validation, on_test, progress)
    clock.lap("judge")

    weights = save_tuned(tunable, prompting.template.tokenizer, prompting.generation, folder.path)
    facts = {"dtype": str(tunable.model.dtype), "threads": torch.get_num_threads()}
    facts |= {"device": str(tunable.model.device), "seconds": clock.seconds}
    folder.write_json(record.ENVIRONMENT, record.environment(**facts))
    paired = _record(folder, tuning, on_validation, on_test, verdict)
    report = build_report(folder)
    judgements = tuple(on_test.judgements.values())
    return Run(folder.path, verdict, judgements, paired, weights, report)


def prepare(recipe: Recipe, progress: Progress) -> Prepared:
    """Read, check and split: everything that needs no model."""
    progress.stage("Reading and checking the data")
    recipe = _with_absolute_paths(recipe)
    files = read(recipe)
    findings = check(recipe, *files)
    for finding in findings:
        progress.say(f"{finding.severity}: {finding}")
    labels = tuple(sorted({example.label for example in files[0] if example.label}))
    wording = recipe.data.instruction if recipe.data.instruction is not None else INSTRUCTION
    instruction = wording.replace("{labels}", ", ".join(labels))
    examples, validation, test = (
        [example.with_system(instruction) for example in part] if part is not None else None
        for part in files
    )
    parts = split(recipe, examples or [], validation, test)
    every = (*parts.train, *parts.validation, *parts.test)
    sizes = ", ".join(f"{len(ids)} {name}" for name, ids in parts.ids().items())
    progress.say(f"{len(every)} examples, {len(labels)} labels: {sizes} (held out)")
    return Prepared(recipe, tuple(findings), parts, labels, instruction, fingerprint(every))


def read(recipe: Recipe) -> Files:
    """The labelled file, and the validation and test files where they are given."""
    data = recipe.data

    def load(path: Path, source: str) -> list[Example]:
        return load_examples(path, text=data.text, label=data.label, source=source)

    for name, given in (("validation", data.validation), ("test", data.test)):
        if given == data.train:
            raise KilotuneError(
                f"the {name} file is the training file",
                where=str(data.train),
                fix="Give another file, or none to have a part split off",
            )
    return (
        load(data.train, "data"),
        load(data.validation, "validation") if data.validation else None,
        load(data.test, "test") if data.test else None,
    )


def check(
    recipe: Recipe,
    examples: list[Example],
    validation: list[Example] | None,
    test: list[Example] | None,
) -> list[Finding]:
    """Everything that is wrong with the data. Raises KilotuneError on errors, all together."""
    findings = check_examples(examples)
    stop_on_errors(findings, str(recipe.data.train))
    given = (
        ("validation", validation, recipe.data.validation),
        ("test", test, recipe.data.test),
    )
    for name, part, path in given:
        if part is None:
            continue
        found = [f for f in check_examples(part) if f.code in {"empty-text", "missing-label"}]
        found += check_unseen_labels(examples, part, name)
        stop_on_errors(found, str(path))
        findings += check_leakage(examples, part, name)
    return findings


def split(
    recipe: Recipe,
    examples: list[Example],
    validation: list[Example] | None,
    test: list[Example] | None,
) -> Split:
    """Train, validation and test by the recipe; given parts stay as they are."""
    return split_examples(
        examples,
        validation=validation,
        test=test,
        validation_fraction=recipe.data.validation_fraction,
        test_fraction=recipe.data.test_fraction,
        seed=recipe.seed,
    )


def load(prepared: Prepared, source: str) -> tuple[Tunable, Prompting]:
    """The model with fresh adapters or unfrozen layers, and how examples are put to it."""
    recipe = prepared.recipe
    tokenizer = load_tokenizer(source, recipe.model)
    template = chat_template(tokenizer)
    dtype = weight_dtype(recipe.tune, compute_dtype(recipe.model.precision))
    model = load_model(source, recipe.model, dtype)
    generation = generation_config(
        recipe.decoding,
        answer_tokens=max(len(template.encode(label)) for label in prepared.labels) + 1,
        stop_ids=stop_ids(model, template.stop_id),
        pad_id=tokenizer.pad_token_id,
    )
    prompting = Prompting(template, generation, recipe.data.max_length, recipe.seed)
    return Tunable(model, recipe.tune, recipe.seed), prompting


def render_parts(
    prepared: Prepared, template: ChatTemplate, progress: Progress
) -> tuple[list[Rendering], list[Rendering], list[Finding]]:
    """Training and validation as token ids with label masks, and all findings so far.

    Raises KilotuneError when the template would train something else than what is generated.
    """
    limit = prepared.recipe.data.max_length
    examples = (*prepared.parts.train, *prepared.parts.validation)
    fitted = [fit_prompt(template, example, limit) for example in examples]
    renderings = [render(template, example) for example, _ in fitted]
    faults = check_renderings(template, [example for example, _ in fitted], renderings)
    stop_on_errors(faults, prepared.recipe.model.name)
    cut = truncated([example.id for example, was_cut in fitted if was_cut], limit)
    for finding in cut:
        progress.say(f"{finding.severity}: {finding}")
    border = len(prepared.parts.train)
    return renderings[:border], renderings[border:], [*prepared.findings, *cut]


def baselines(known: Sequence[Example], examples: Sequence[Example]) -> dict[str, Answers]:
    """The commonest label and a bag of words, both learnt from `known`, for `examples`."""
    labels = references(known)
    words = tfidf([e.text for e in known], labels, [e.text for e in examples])
    common = majority(labels, len(examples))
    return {"majority": Answers(tuple(common)), "tfidf": Answers(tuple(words))}


def answer(
    prepared: Prepared, prompting: Prompting, model: Model, examples: Sequence[Example],
    progress: Progress, title: str,
) -> Answers:  # fmt: skip
    """What `model` generates for `examples`, and the labels that its answers name."""
    said = prompting.answers(model, examples, progress, title)
    return Answers(
        predictions=tuple(parse_label(answer.text, prepared.labels) for answer in said),
        texts=tuple(answer.text for answer in said),
        stopped=sum(answer.stopped for answer in said) / max(1, len(said)),
    )


def tune_model(
    prepared: Prepared, prompting: Prompting, tunable: Tunable,
    train: Sequence[Rendering], validation: Sequence[Rendering],
    folder: RunFolder, progress: Progress,
) -> Tuning:  # fmt: skip
    """Train, measuring the generated answers on validation at every evaluation."""
    part = prepared.parts.validation

    def measure(model: Model) -> dict[str, float]:
        said = answer(prepared, prompting, model, part, progress, "validating")
        return quick_metrics(references(part), said.predictions, prepared.labels)

    return tune(
        tunable,
        prepared.recipe,
        train=train,
        validation=validation,
        pad_id=prompting.template.tokenizer.pad_token_id,
        folder=folder / record.CHECKPOINTS,
        measure=measure,
        on_log=folder.append_metrics,
        progress=progress,
    )


def judge(
    prepared: Prepared, prompting: Prompting, tunable: Tunable, examples: Sequence[Example],
    known: Sequence[Example], progress: Progress, base: Answers | None = None,
) -> Judged:  # fmt: skip
    """Every system on `examples`; the baselines learn from `known`, `base` may be known already."""
    if base is None:
        with tunable.as_base() as model:
            base = answer(prepared, prompting, model, examples, progress, "base model")
    tuned = answer(prepared, prompting, tunable.model, examples, progress, "tuned model")
    answers = {**baselines(known, examples), "base": base, "tuned": tuned}
    judgements = {
        name: _figures(prepared, name, examples, said) for name, said in answers.items()
    }
    return Judged(tuple(examples), answers, judgements)


def reach_verdict(
    prepared: Prepared, prompting: Prompting, tunable: Tunable, tuning: Tuning,
    on_validation: Judged, on_test: Judged, progress: Progress,
) -> Verdict:  # fmt: skip
    """Judge a sample of the training examples too, in the same way, and decide."""
    train, size = prepared.parts.train, prepared.recipe.judge.train_sample
    # Drawn, since a file is often sorted by label.
    sample = random.Random(prepared.recipe.seed).sample(train, min(size, len(train)))
    said = answer(prepared, prompting, tunable.model, sample, progress, "training sample")
    return decide(
        prepared.recipe,
        train=_figures(prepared, "train", sample, said).accuracy,
        validation=on_validation.judgements["tuned"].accuracy,
        majority=on_validation.judgements["majority"].accuracy,
        losses=[line["loss"] for line in tuning.history if "loss" in line],
        remarks=remarks_on(*(on_test.judgements[name] for name in ("tuned", "base", "tfidf"))),
    )


def references(examples: Sequence[Example]) -> list[str]:
    """The true labels."""
    return [example.label or "" for example in examples]


def _record(
    folder: RunFolder, tuning: Tuning, on_validation: Judged, on_test: Judged, verdict: Verdict
) -> PairedTest:
    """Write what was found, the verdict last: it marks the run as finished."""
    base, tuned = on_test.answers["base"], on_test.answers["tuned"]
    paired = mcnemar(references(on_test.examples), base.predictions, tuned.predictions)
    folder.write_predictions(
        [
            {
                "id": example.id,
                "prompt": example.text,
                "reference": example.label,
                **{f"{name}_output": on_test.answers[name].texts[i] for name in ("base", "tuned")},
                **{f"{name}_prediction": said.predictions[i] for name, said in on_test.answers.items()},
            }
            for i, example in enumerate(on_test.examples)
        ]
    )
    judged = {
        "test": list(on_test.judgements.values()),
        "validation": list(on_validation.judgements.values()),
        "tuned_against_base": paired,
        "test_opened": "once, after the best checkpoint was chosen",
        "tuning": replace(tuning, history=()),
    }
    folder.write_json(record.JUDGEMENT, judged)
    folder.write_json(record.VERDICT, verdict)
    return paired


def _figures(
    prepared: Prepared, name: str, examples: Sequence[Example], said: Answers
) -> Judgement:
    return judge_system(
        name,
        references(examples),
        said.predictions,
        prepared.labels,
        stopped=said.stopped,
        bootstrap_samples=prepared.recipe.judge.bootstrap_samples,
        seed=prepared.recipe.seed,
    )


def _base_line(base: Answers, examples: Sequence[Example]) -> str:
    right = sum(p == r for p, r in zip(base.predictions, references(examples), strict=True))
    silent = sum(not prediction for prediction in base.predictions)
    return f"Base model: {right} of {len(examples)} right, {silent} answers name no label"


def _data_record(prepared: Prepared) -> dict[str, object]:
    return {
        "fingerprint": prepared.fingerprint,
        "labels": prepared.labels,
        "instruction": prepared.instruction,
        "split": prepared.parts.ids(),
    }


def _with_absolute_paths(recipe: Recipe) -> Recipe:
    """So that the recipe saved with a run can be run again from any folder."""
    data = recipe.data
    paths = {
        name: path.expanduser().absolute()
        for name in ("train", "validation", "test")
        if (path := getattr(data, name)) is not None
    }
    return recipe.model_copy(update={"data": data.model_copy(update=paths)})


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self._last, 2)
        self._last = now
