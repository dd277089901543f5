"""Unlabelled texts: which of them the tuned model may label, and whether that helps."""
