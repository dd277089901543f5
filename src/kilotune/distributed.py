"""Several processes that train together, as torchrun and accelerate launch start them.

Each does all of the work but for its share of the training batches, and one of them, the leader,
alone writes and speaks.
"""

import os


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process is the one that writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def local_rank() -> int:
    """The number of this process on its machine: which accelerator is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))
