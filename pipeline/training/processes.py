"""The processes of a run: which of torchrun's ranks this one is, and on which device it computes."""

import logging
import os
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, TCPStore  # type: ignore[attr-defined]  # a gap in annotations

from pipeline.errors import StrataError


@dataclass(frozen=True)
class Rank:
    """This process, number `rank` of `ranks`, and `rank_here` of the `ranks_here` of its machine.

    The first one reports for all.
    """

    rank: int
    ranks: int
    device: torch.device
    rank_here: int = 0
    ranks_here: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0


def quiet_libraries() -> None:
    """Hides warnings of libraries about each other: no user can act on them."""
    for library in ("", "torchrec", "torch.fx"):  # "" is the root logger: TorchRec uses it, Strata does not
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch(rec)?\.")
    # FBGEMM registers the gradient of its lookup in replicated tables in an old way. Tests prove the gradient right.
    warnings.filterwarnings("ignore", message="fbgemm::dense_embedding_codegen_lookup_function")


def _torchruns_store() -> TCPStore | None:
    """The store of torchrun's own process, which outlives the ranks; None without torchrun."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


class Job:
    """What the attempts of one torchrun share. When a rank dies, torchrun starts all ranks again: another attempt."""

    def __init__(self, run: Path) -> None:
        self._key = f"strata/{run.absolute()}"
        self._store = _torchruns_store()

    def has_begun(self) -> bool:
        """Whether an earlier attempt has begun or resumed this run."""
        return self._store is not None and bool(self._store.check([self._key]))

    def begin(self) -> None:
        if self._store is not None:
            self._store.set(self._key, "begun")


@contextmanager
def process_group(wanted: Literal["auto", "cpu", "cuda"]) -> Iterator[Rank]:
    """Joins the ranks: NCCL on CUDA, gloo on CPU. Without torchrun this process is the only rank.

    Raises StrataError if `wanted` is CUDA and there is none.
    """
    quiet_libraries()
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StrataError("there is no CUDA device", where="--device cuda", fix="use --device cpu")
    rank_here, ranks_here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    enough = torch.cuda.device_count() >= ranks_here  # NCCL needs a device for each rank
    on_cuda = wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available() and enough)
    device = torch.device("cuda", rank_here) if on_cuda else torch.device("cpu")
    if on_cuda:
        torch.cuda.set_device(device)
    else:
        _keep_to_own_cores(rank_here, ranks_here)
    backend = "nccl" if on_cuda else "gloo"
    store = _torchruns_store()
    if store is not None:
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        dist.init_process_group(
            backend, store=PrefixStore(_agree_on_attempt(store, rank, ranks), store), rank=rank, world_size=ranks
        )
    elif "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=HashStore())
    try:
        yield Rank(dist.get_rank(), dist.get_world_size(), device, rank_here, ranks_here)
    finally:
        dist.destroy_process_group()


def _keep_to_own_cores(rank: int, ranks: int) -> None:
    """Gives each rank its own cores, if this machine's ranks have as many threads as it has cores.

    Otherwise the system now and then puts two ranks on one core, and all other ranks wait for these two.
    """
    cores = sorted(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    if threads * ranks == len(cores):
        os.sched_setaffinity(0, cores[rank * threads : (rank + 1) * threads])


def _agree_on_attempt(store: TCPStore, rank: int, ranks: int) -> str:
    """A name for this attempt, the same on all ranks that are alive now, and on no rank that died before.

    Every rank draws a new token, and the first rank's token is the name. Each other rank puts its token into the store.
    The first rank publishes the name beside the tokens that it sees there; a rank that finds its own token beside the
    name takes the name, and says so. So the first rank knows when all ranks have the name.

    Without a name, ranks would take the addresses of ranks that died for those of living ones, and wait for them:
    torch 2.13 keeps both in the same place of the store (pytorch issue 135712). The number of restarts cannot be the
    name, because every machine counts its own.
    """
    mine = uuid.uuid4().hex
    others = [f"strata/token/{other}" for other in range(1, ranks)]
    if rank == 0:
        while not all(store.check([f"strata/{mine}/{other}"]) for other in others):
            tokens = [store.get(other).decode() for other in others if store.check([other])]
            store.set("strata/attempt", ",".join([mine, *tokens]))
            time.sleep(0.01)
        return mine
    store.set(others[rank - 1], mine)
    while True:
        name, *tokens = store.get("strata/attempt").decode().split(",")
        if mine in tokens:
            store.set(f"strata/{name}/{others[rank - 1]}", "")
            return name
        time.sleep(0.01)
