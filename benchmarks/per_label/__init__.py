"""Which system gives the best model per label? The benchmark: `python -m benchmarks.per_label`."""
