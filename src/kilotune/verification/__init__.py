"""Exported models put to other programs, and their answers beside those that were judged."""
