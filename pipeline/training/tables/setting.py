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


@dataclass(frozen=True)
class Setting:
    """Sizes are in bytes and those of one rank."""

    device: str
    """ "cpu" or "cuda"."""
    ranks: int
    ranks_here: int
    """Those on one machine."""
    rows: int
    """Of a rank's batch."""
    lengths: Mapping[str, float]
    """Of lists and histories, on average, by feature."""
    hbm: int
    """Memory of the rank's device, 0 on a CPU."""
    ddr: int
    """Its share of the machine's memory."""
    dense: int
    """What the dense part takes, on the device or, on a CPU, in the machine."""
    dense_copies: int
    """What copies of it take in the machine, of the first rank alone, from which checkpoints are written."""

    def room(self, rank: int) -> Storage:
        """What tables may take on a rank; less than nothing where the dense part alone is too large."""
        hbm, ddr = (int(size * (1 - HEADROOM)) for size in (self.hbm, self.ddr))
        ddr -= self.dense_copies if rank == 0 else 0
        return Storage(hbm=hbm - self.dense, ddr=ddr) if self.hbm else Storage(hbm=0, ddr=ddr - self.dense)


def measure(ranker: Ranker, spec: Spec, samples: Path, batch_size: int, rank: Rank) -> Setting:
    """The setting of this very run; `batch_size` is that of all ranks together."""
    rows, ranks_here = -(-batch_size // rank.ranks), get_local_size(rank.ranks)
    return Setting(
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
    """Of lists and histories in the training split; the greatest possible ones where the store has no statistics."""
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
