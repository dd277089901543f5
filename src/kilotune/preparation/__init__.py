"""Data before any model: read, checked, split. No torch here."""
