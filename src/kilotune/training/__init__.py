"""The training itself: batches, loss, stopping, and a subclass of transformers' Trainer."""
