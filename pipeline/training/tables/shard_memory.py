"""The memory that a shard of an embedding table takes: TorchRec's estimate, corrected where it is wrong."""

from typing import Any

from torchrec.distributed.planner.shard_estimators import EmbeddingStorageEstimator
from torchrec.distributed.planner.types import ParameterConstraints, Shard, ShardingOption, Storage, Topology

from pipeline.training.tables.memory import copy_memory


def weight_bytes(option: ShardingOption, shard: Shard) -> int:
    rows, columns = shard.size
    return int(rows * columns * option.tensor.element_size())


def state_bytes(option: ShardingOption, shard: Shard) -> int:
    """Bytes of the state of row-wise Adagrad: 4 for each row of each shard.

    A replicated table also has a gradient as large as the table, and the gradient's squares.
    """
    dense = 2 * weight_bytes(option, shard) if option.sharding_type == "data_parallel" else 0
    return sum_bytes(shard) + dense


def sum_bytes(shard: Shard) -> int:
    return int(4 * shard.size[0])


def copy_bytes(option: ShardingOption, shard: Shard, device: str) -> int:
    """Bytes of the machine's memory for the copies of weights and sums from which checkpoints are written.

    Of a replicated table only the first rank has copies, and it gets the first shard.
    """
    if option.sharding_type == "data_parallel" and shard is not option.shards[0]:
        return 0
    return copy_memory(weight_bytes(option, shard), device) + copy_memory(sum_bytes(shard), device)


class StorageEstimator(EmbeddingStorageEstimator):
    """TorchRec's estimator, with the right size of Adagrad's state, and with the copies for checkpoints.

    TorchRec counts one number per row in the precision of the weights, and leaves out the gradient of a replicated
    table.
    """

    def __init__(self, topology: Topology, constraints: dict[str, ParameterConstraints]) -> None:
        super().__init__(topology, constraints)
        self._device = topology.compute_device

    def estimate(self, sharding_options: list[ShardingOption], sharder_data_map: Any) -> None:
        super().estimate(sharding_options, sharder_data_map)
        for option in sharding_options:
            for shard in option.shards:
                counted = -(-weight_bytes(option, shard) // option.tensor.shape[1])
                missing = state_bytes(option, shard) - counted
                # `ddr` is the machine's memory. On a CPU all tables are there, on CUDA those of the uvm kernels.
                shard.storage += Storage(hbm=0, ddr=missing) if shard.storage.ddr else Storage(hbm=missing, ddr=0)
                shard.storage += Storage(hbm=0, ddr=copy_bytes(option, shard, self._device))
