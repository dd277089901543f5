"""What runs and ablations share that go on: first records, and what must not have changed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from kilotune.errors import KilotuneError
from kilotune.preparation.prepare import Prepared
from kilotune.progress import Progress
from kilotune.recipe.advice import advised
from kilotune.recipe.difference import binding_settings
from kilotune.runs import record
from kilotune.runs.documents import DataDocument, EnvironmentDocument
from kilotune.runs.record import RunFolder


def begin(folder: RunFolder, prepared: Prepared, base: Mapping[str, str]) -> None:
    """The records behind the recipe, `base` of the base model's identity.

    That of the data comes last: where it is, `folder` has begun.
    """
    folder.note_identity(settings=binding_settings(prepared.recipe), **base)
    folder.write(record.environment())
    folder.write(prepared.record())


def begun(folder: RunFolder) -> bool:
    """Whether the first records are all there."""
    return (folder / record.DATA).exists()


def check_unchanged(folder: RunFolder, prepared: Prepared, progress: Progress) -> None:
    """Raise KilotuneError for other data than those of `folder`, which has begun.

    And for one of which it is not on record what it is of; other code is said.
    """
    command = "ablate" if folder.ablation else "run"
    again = advised(command, folder / record.RECIPE)
    if not folder.read_identity():
        raise KilotuneError(
            f"started by an earlier version of kilotune, without {record.IDENTITY}: whether its "
            "model and its checkpoints are what they were cannot be checked",
            where=str(folder.path),
            fix=f"Resume it with that version, or run it again: {again}",
        )
    if prepared.fingerprint != folder.read(DataDocument).fingerprint:
        raise KilotuneError(
            f"the data have changed since the {'ablation' if folder.ablation else 'run'} began",
            where=str(prepared.recipe.data.train),
            fix=f"Restore them, or start a new one: {again}",
        )
    known = folder.read_if_there(EnvironmentDocument)
    if known and known.code != record.code_digest():
        progress.say("warning: it was started by a different version of kilotune")


def check_same_data(folder: RunFolder, prepared: Prepared) -> None:
    """Raise KilotuneError where the data of a finished run are others by now."""
    if prepared.fingerprint != folder.read(DataDocument).fingerprint:
        raise KilotuneError(
            "the data have changed since the run",
            where=str(prepared.recipe.data.train),
            fix="Restore them",
        )


@contextmanager
def kept(folder: RunFolder, progress: Progress) -> Iterator[None]:
    """Say how to go on with what is stopped inside the `with`."""
    try:
        yield
    except KeyboardInterrupt:
        command = "ablate" if folder.ablation else "resume"
        progress.say(f"Stopped; go on with: {advised(command, folder.path)}")
        raise
