"""A model in memory with the data of a run, and all that is asked of it."""
