"""Packages that only some users have installed."""

from importlib import import_module
from typing import Any

from kilotune.errors import KilotuneError


def extra(name: str, *, where: str, fix: str) -> Any:
    """The package `name`. Raises KilotuneError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise KilotuneError(f"{name} is not installed", where=where, fix=fix) from error
