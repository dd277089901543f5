"""Answers, as users get them: real generation from the model's own prompt."""
