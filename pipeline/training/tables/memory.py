"""Memory in bytes: what the machine has left, and what the dense network and copies for checkpoints take."""

import copy
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from models.ranker import Network

COPIES = 4  # of a dense parameter: itself, its gradient, and Adam's two moments
# Control groups by the name of their hierarchy in /proc/self/cgroup ("" is version 2). Each has the folder where it is
# mounted, the files with its limit and its use, and the name of the file cache in its use, which the kernel gives up.
GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that processes may still take: what is free on the machine, or less if a container has less left."""
    free = _values(root / "proc/meminfo")["MemAvailable:"] * 1024
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, hierarchy, group = line.split(":", 2)
        if hierarchy not in GROUPS:
            continue
        mount, limit, use, cache = GROUPS[hierarchy]
        path = PurePosixPath(group).relative_to("/")
        for inside in (path, *path.parents):  # the limits of the groups around it bind a group, too
            place = root / mount / inside
            if (place / limit).is_file() and (most := (place / limit).read_text().strip()) != "max":
                left = int(most) - int((place / use).read_text()) + _values(place / "memory.stat").get(cache, 0)
                free = min(free, max(0, left))
    return free


def _values(path: Path) -> dict[str, int]:
    """The numbers by name in a file of lines `name number` or `name number kB`."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}


def copy_memory(size: int, device: str) -> int:
    """Bytes of the machine's memory for a copy of a tensor of `size` bytes; checkpoints are written from copies.

    Copies of tensors on a CUDA device are in pinned memory, which PyTorch allocates by powers of two
    (https://docs.pytorch.org/docs/main/generated/torch.cuda.memory.host_memory_stats.html).
    """
    return 1 << (size - 1).bit_length() if size and device == "cuda" else size


def dense_copies(network: Network, device: str) -> int:
    """Bytes of the machine's memory for copies of the dense network: its parameters, Adam's moments and steps."""
    step = copy_memory(4, device)
    return sum(3 * copy_memory(p.nbytes, device) + step for p in network.parameters())


def dense_memory(network: Network, rows: int) -> int:
    """Bytes of the dense network in a training step of `rows` rows, in fp32.

    They are its parameters, their gradients, the state of Adam, and the activations that the forward pass keeps for
    the backward pass. The activations are counted in a forward pass on the device "meta", which computes nothing.
    """
    dense = copy.deepcopy(network).to("meta")
    parameters = {parameter.untyped_storage() for parameter in dense.parameters()}
    kept: set[torch.UntypedStorage] = set()

    def note(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())  # views of one tensor have the same storage, which counts once
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = dense(torch.empty(rows, network.d_in, device="meta", requires_grad=True))
    activations = sum(storage.nbytes() for storage in kept - parameters)
    return COPIES * sum(storage.nbytes() for storage in parameters) + activations + int(outputs.nbytes)
