"""What several processes hold in parts, or one of them alone."""

import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor, distribute_tensor

from kilotune import distributed
from kilotune.models.pretrained import best_device


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of `tensor`, detached; of one that FSDP2 cut up every process must ask for it."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


def cut_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`tensor`, whole or in parts, in the parts that FSDP2 cut `other` up into, if it did."""
    if not isinstance(other, DTensor) or isinstance(tensor, DTensor):
        return tensor
    return distribute_tensor(tensor, other.device_mesh, other.placements)


def of_the_leader(value: str) -> str:
    """The leader's `value`, in every process; they wait for each other here."""
    if distributed.count() == 1:
        return value
    PartialState(cpu=best_device().type == "cpu")  # makes the process group
    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]
