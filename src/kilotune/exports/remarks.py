"""What whoever serves an export must know, and no program says."""

from pathlib import Path

from kilotune.exports.finished import Finished, open_finished
from kilotune.messages.sentences import Phrase, phrase


def remarks(run: str | Path, to: str, *, trust_code: bool = False) -> tuple[Phrase, ...]:
    """What to say of the finished `run` in the form `to`. Raises KilotuneError as `export` does."""
    return tuple(_remarks(open_finished(Path(run), trust_code=trust_code), to))


def _remarks(finished: Finished, to: str) -> list[Phrase]:
    found = [phrase("export-room", tokens=finished.decoding.max_new_tokens)]
    asked = finished.wording.question != "{text}"
    if finished.systems_differ:
        found.append(phrase("export-systems-differ"))
    # Ollama has the system message from the Modelfile.
    elif finished.system and to != "ollama":
        found.append(phrase("export-prompts-told"))
    elif asked:
        found.append(phrase("export-prompts-asked"))
    return found
