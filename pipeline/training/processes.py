"""The processes of a run: who we are among the ranks that torchrun started, and on which device we compute."""

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
from torch._C._distributed_c10d import HashStore, PrefixStore, TCPStore

from pipeline.errors import StrataError


@dataclass(frozen=True)
class Rank:
    """This process among `ranks`; the first one reports for all."""

    rank: int
    ranks: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


def quiet_libraries() -> None:
    """Hides warnings about the libraries' own calls of each other, upon which no user can act."""
    for library in ("", "torchrec", "torch.fx"):  # "" is the root: TorchRec logs to it as well, Strata never does
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch(rec)?\.")
    # FBGEMM's lookup of replicated tables registers its gradient in an old way; tests hold it to the fused lookup's.
    warnings.filterwarnings("ignore", message="fbgemm::dense_embedding_codegen_lookup_function")


def _torchruns_store() -> TCPStore | None:
    """The store of torchrun's own process, which outlives the ranks; None where there is none."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


class Job:
    """What the attempts of one torchrun know of each other: after the death of a rank it starts all of them again."""

    def __init__(self, run: Path) -> None:
        self._key = f"strata/{run.absolute()}"
        self._store = _torchruns_store()

    def has_begun(self) -> bool:
        """Whether an earlier attempt has begun, or taken up, this run."""
        return self._store is not None and bool(self._store.check([self._key]))

    def begin(self) -> None:
        if self._store is not None:
            self._store.set(self._key, "begun")


@contextmanager
def process_group(wanted: Literal["auto", "cpu", "cuda"]) -> Iterator[Rank]:
    """Joins the ranks: NCCL on CUDA, gloo on CPU. Without torchrun it is a group of one.

    Raises StrataError if CUDA is asked for where there is none.
    """
    quiet_libraries()
    if wanted == "cuda" and not torch.cuda.is_available():
        raise StrataError("there is no CUDA device", where="--device cuda", fix="use --device cpu")
    rank_here, ranks_here = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    enough = torch.cuda.device_count() >= ranks_here  # NCCL: a device for each rank
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
            backend, store=PrefixStore(_attempt(store, rank, ranks), store), rank=rank, world_size=ranks
        )
    elif "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, rank=0, world_size=1, store=HashStore())
    try:
        yield Rank(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def _keep_to_own_cores(rank: int, ranks: int) -> None:
    """Where the threads of this machine's ranks are as many as its cores, gives each rank its own.

    Left to itself the system now and then puts two ranks on one core, and all ranks wait for these.
    """
    cores = sorted(os.sched_getaffinity(0))
    threads = torch.get_num_threads()
    if threads * ranks == len(cores):
        os.sched_setaffinity(0, cores[rank * threads : (rank + 1) * threads])


def _attempt(store: TCPStore, rank: int, ranks: int) -> str:
    """A name on which the ranks that live now agree: the first rank's, which it gives to whoever shows it a new sign.

    Without it they would take addresses of ranks that died before for each other's, and wait for them: torch 2.13
    keeps both in the same place of the store (pytorch issue 135712). The number of restarts is no such name, because
    every machine counts its own.
    """
    mine = uuid.uuid4().hex
    others = [f"strata/sign/{other}" for other in range(1, ranks)]
    if rank == 0:
        while not all(store.check([f"strata/{mine}/{sign}"]) for sign in others):
            signs = [store.get(sign).decode() for sign in others if store.check([sign])]
            store.set("strata/attempt", ",".join([mine, *signs]))
            time.sleep(0.01)
        return mine
    store.set(others[rank - 1], mine)
    while True:
        name, *signs = store.get("strata/attempt").decode().split(",")
        if mine in signs:
            store.set(f"strata/{name}/{others[rank - 1]}", "")
            return name
        time.sleep(0.01)
