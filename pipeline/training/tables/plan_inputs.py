"""What a sharding plan depends on besides the tables: the ranks, their batches, and their memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.planner.types import Storage

from models.ranker import Ranker
from pipeline.spec.features import HistoryFeature, IdListFeature
from pipeline.spec.spec import Spec
from pipeline.statistics import STATISTICS, load_statistics
from pipeline.training.processes import Rank
from pipeline.training.tables.memory import dense_copies, dense_memory, host_memory

HEADROOM = 0.1  # of all memory: fragments, buffers of the communication, batches on their way


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Sizes are in bytes, for one rank."""

    device: str
    """ "cpu" or "cuda"."""
    ranks: int
    ranks_here: int
    """Ranks on one machine."""
    rows: int
    """Rows of a rank's batch."""
    lengths: Mapping[str, float]
    """Mean lengths of lists and histories, by feature."""
    hbm: int
    """Memory of the rank's device; 0 on a CPU."""
    ddr: int
    """The rank's share of the machine's memory."""
    dense: int
    """Memory of the dense part, on the device or, on a CPU, in the machine."""
    dense_copies: int
    """The machine's memory for copies of the dense part, from which the first rank writes checkpoints."""

    def room(self, rank: int) -> Storage:
        """Memory for tables on a rank; negative where the dense part alone is too large."""
        hbm, ddr = (int(size * (1 - HEADROOM)) for size in (self.hbm, self.ddr))
        ddr -= self.dense_copies if rank == 0 else 0
        return Storage(hbm=hbm - self.dense, ddr=ddr) if self.hbm else Storage(hbm=0, ddr=ddr - self.dense)


def measure_plan_inputs(ranker: Ranker, spec: Spec, samples: Path, batch_size: int, rank: Rank) -> PlanInputs:
    """The inputs of this run on this machine. `batch_size` is that of all ranks together."""
    rows, ranks_here = -(-batch_size // rank.ranks), get_local_size(rank.ranks)
    return PlanInputs(
        device=rank.device.type,
        ranks=rank.ranks,
        ranks_here=ranks_here,
        rows=rows,
        lengths=mean_lengths(spec, samples),
        hbm=torch.cuda.mem_get_info(rank.device)[0] if rank.device.type == "cuda" else 0,
        ddr=host_memory() // ranks_here,
        dense=dense_memory(ranker.network, rows),
        dense_copies=dense_copies(ranker.network, rank.device.type),
    )


def mean_lengths(spec: Spec, samples: Path) -> dict[str, float]:
    """Mean lengths of lists and histories in training; the longest possible ones if the store has no statistics."""
    most = {name: float(f.last) for name, f in spec.sparse_features.items() if isinstance(f, HistoryFeature)}
    most |= {name: float(f.max_length) for name, f in spec.sparse_features.items() if isinstance(f, IdListFeature)}
    if not (samples / STATISTICS).exists():
        return most
    days = [day for day in load_statistics(samples).days if day.split == "train"]
    found = {}
    for name in most:
        ids = sum(length * rows for day in days for length, rows in enumerate(day.lengths[name]))
        found[name] = ids / max(1, sum(sum(day.lengths[name]) for day in days))
    return found
