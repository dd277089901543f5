"""`python -m kilotune`: what torchrun and accelerate launch start."""

from kilotune.cli.main import app

app(prog_name="kilotune")
