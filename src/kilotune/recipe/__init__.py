"""Every setting of a run: one validated, frozen model, YAML on disk."""
