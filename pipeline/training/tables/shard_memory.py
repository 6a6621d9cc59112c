"""What a shard of an embedding table takes, as TorchRec's planner estimates it, and put right where it is wrong."""

from typing import Any

from torchrec.distributed.planner.shard_estimators import EmbeddingStorageEstimator
from torchrec.distributed.planner.types import Shard, ShardingOption, Storage

from pipeline.training.tables.memory import copy_memory


def weight_bytes(option: ShardingOption, shard: Shard) -> int:
    rows, columns = shard.size
    return int(rows * columns * option.tensor.element_size())


def state_bytes(option: ShardingOption, shard: Shard) -> int:
    """Of row-wise Adagrad, which has a number of 4 bytes for each row of each shard.

    For a replicated table there is its gradient as well, as large as the table, and the gradient's squares.
    """
    dense = 2 * weight_bytes(option, shard) if option.sharding_type == "data_parallel" else 0
    return sum_bytes(shard) + dense


def sum_bytes(shard: Shard) -> int:
    return int(4 * shard.size[0])


def copy_bytes(option: ShardingOption, shard: Shard, device: str) -> int:
    """Of the copies in the machine's memory from which checkpoints are written: of weights and sums.

    Of a replicated table the first rank alone has them, which gets the first shard.
    """
    if option.sharding_type == "data_parallel" and shard is not option.shards[0]:
        return 0
    return copy_memory(weight_bytes(option, shard), device) + copy_memory(sum_bytes(shard), device)


class StorageEstimator(EmbeddingStorageEstimator):
    """TorchRec's own, put right about the state of row-wise Adagrad, and with the copies for checkpoints.

    It takes that state to be as precise as the weights and one number per row, and forgets a replicated table's
    gradient.
    """

    def estimate(self, sharding_options: list[ShardingOption], sharder_data_map: Any) -> None:
        super().estimate(sharding_options, sharder_data_map)
        for option in sharding_options:
            for shard in option.shards:
                counted = -(-weight_bytes(option, shard) // option.tensor.shape[1])
                missing = state_bytes(option, shard) - counted
                # On a CPU all is in `ddr`, on CUDA the tables of the uvm kernels are.
                shard.storage += Storage(hbm=0, ddr=missing) if shard.storage.ddr else Storage(hbm=missing, ddr=0)
                shard.storage += Storage(hbm=0, ddr=copy_bytes(option, shard, self._topology.compute_device))
