"""One self-contained HTML page from a run's records; nothing is computed anew. No torch here."""
