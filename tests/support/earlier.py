"""Run folders as earlier versions left them."""

import json
from pathlib import Path


def without_identity(run: Path) -> None:
    """As of before a run kept what it is of."""
    (run / "identity.json").unlink()
    file = run / "environment.json"
    environment = json.loads(file.read_text(encoding="utf-8"))
    del environment["identity"]
    file.write_text(json.dumps(environment), encoding="utf-8")
