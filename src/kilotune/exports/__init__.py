"""A finished run for other programs: its weights, their commands, and a model card."""

from kilotune.exports.forms import FORMS, describe, export
from kilotune.exports.remarks import remarks

__all__ = ["FORMS", "describe", "export", "remarks"]
