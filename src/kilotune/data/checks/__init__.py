"""What is wrong with labelled data, found before anything is trained."""

from collections.abc import Sequence

from kilotune.data.checks import conversation, duplicates, labels
from kilotune.data.checks.duplicates import check_leakage
from kilotune.data.checks.labels import check_unseen_labels
from kilotune.data.example import Example
from kilotune.data.finding import Finding, errors_first

__all__ = ["check_examples", "check_leakage", "check_unseen_labels"]

CHECKS = (
    conversation.empty_text,
    labels.missing_label,
    conversation.too_few,
    labels.classes,
    labels.label_variants,
    duplicates.repeats,
)


def check_examples(examples: Sequence[Example]) -> list[Finding]:
    """Every check that needs the examples alone, errors first."""
    return errors_first(finding for check in CHECKS for finding in check(examples))
