"""Runs on disk: their records, read, listed and held against each other. No torch here."""
