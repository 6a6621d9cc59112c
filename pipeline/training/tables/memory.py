"""How much memory there is for a rank, and how much of it the dense part of a model and copies of tensors take."""

import copy
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from models.ranker import Network

COPIES = 4  # of a dense parameter: itself, its gradient, and Adam's two moments
# Of a control group, by the name of its hierarchy in /proc/self/cgroup ("" is version 2): where it is mounted, and its
# files with the limit, the use, and the part of the use that is file cache, which gives way.
GROUPS = {
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that processes on this machine may still take: those that are free, or those that its container is left."""
    free = _values(root / "proc/meminfo")["MemAvailable:"] * 1024
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, hierarchy, group = line.split(":", 2)
        if hierarchy not in GROUPS:
            continue
        mount, limit, use, cache = GROUPS[hierarchy]
        path = PurePosixPath(group).relative_to("/")
        for inside in (path, *path.parents):  # a group is bound by those around it, too
            place = root / mount / inside
            if (place / limit).is_file() and (most := (place / limit).read_text().strip()) != "max":
                left = int(most) - int((place / use).read_text()) + _values(place / "memory.stat").get(cache, 0)
                free = min(free, max(0, left))
    return free


def _values(path: Path) -> dict[str, int]:
    """The lines `name number` or `name number kB` of a file."""
    words = (line.split() for line in path.read_text().splitlines())
    return {name: int(number) for name, number, *_ in words}


def copy_memory(size: int, device: str) -> int:
    """Bytes of the machine's memory that a copy of a tensor of `size` bytes takes, from which checkpoints are written.

    Copies of what is on a CUDA device are pinned, which PyTorch gives out by powers of two
    (https://docs.pytorch.org/docs/main/generated/torch.cuda.memory.host_memory_stats.html).
    """
    return 1 << (size - 1).bit_length() if size and device == "cuda" else size


def dense_copies(network: Network, device: str) -> int:
    """Bytes of the machine's memory for copies of the dense network: each parameter, and Adam's moments and step."""
    step = copy_memory(4, device)
    return sum(3 * copy_memory(p.nbytes, device) + step for p in network.parameters())


def dense_memory(network: Network, rows: int) -> int:
    """Bytes of the dense network in a training step of `rows` rows, in fp32.

    Its parameters, their gradients and the state of Adam; and what the forward pass keeps for the backward pass, which
    is counted in a forward pass on the device "meta", where nothing is computed.
    """
    dense = copy.deepcopy(network).to("meta")
    parameters = {p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in dense.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = dense(torch.empty(rows, network.d_in, device="meta", requires_grad=True))  # holds all that is kept
    activations = sum(size for storage, size in kept.items() if storage not in parameters)
    return COPIES * sum(parameters.values()) + activations + int(outputs.nbytes)
