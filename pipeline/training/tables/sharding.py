"""Spreads the embedding tables over the ranks, and fills them with the same numbers under any plan."""

import warnings

import torch
from torch import Tensor
from torchrec import EmbeddingBagConfig
from torchrec.distributed import DistributedModelParallel

from models.ranker import Ranker, table_weight
from pipeline.training.private_apis import ShardedTensor
from pipeline.training.processes import Rank
from pipeline.training.tables.config import TablesConfig
from pipeline.training.tables.plan import TablePlan, sharder

ROWS_PER_DRAW = 8192  # rows that one random generator fills, so that any shard can draw its own rows


def shard(ranker: Ranker, plan: TablePlan, config: TablesConfig, rank: Rank, seed: int) -> DistributedModelParallel:
    """The model with its tables sharded as planned and its dense part replicated.

    Row-wise Adagrad updates sharded tables inside the backward pass. The tables of `ranker.embeddings` may be on the
    device "meta": they are filled here, from `seed` alone.
    """
    tables = ranker.embeddings.tables.embedding_bag_configs()  # before they are replaced by sharded ones
    sharders = [sharder(config, rank.device.type, plan.rows)]
    ranker.network.to(rank.device)  # DDP would do it, but only replicated tables need DDP
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchRec passes DDP an argument that torch 2.13 renamed
        model = DistributedModelParallel(
            ranker, device=rank.device, plan=plan.sharding, sharders=sharders, init_data_parallel=False
        )
    _fill_tables(model, tables, config.init_std, seed)
    return model


def _fill_tables(model: DistributedModelParallel, tables: list[EmbeddingBagConfig], std: float, seed: int) -> None:
    """Draws each table from Normal(0, std) in blocks of rows. A shard draws the blocks that it overlaps."""
    state = model.state_dict()
    for index, table in enumerate(tables):
        weight = state[table_weight(table.name)]
        if isinstance(weight, ShardedTensor):
            for local in weight.local_shards():
                _fill(local.tensor, local.metadata.shard_offsets, table.embedding_dim, std, [seed, index])
        else:
            _fill(weight, [0, 0], table.embedding_dim, std, [seed, index])


def _fill(shard: Tensor, offsets: list[int], dim: int, std: float, key: list[int]) -> None:
    """Fills the shard of a table of `dim` columns that begins at row and column `offsets`."""
    first_row, first_column = offsets
    end, end_column = first_row + len(shard), first_column + shard.shape[1]
    for block in range(first_row // ROWS_PER_DRAW, -(-end // ROWS_PER_DRAW)):
        # Mixes the key by a product of odd constants, so that neighbouring blocks get unrelated seeds.
        mixed = (key[0] * 0x9E3779B97F4A7C15 + key[1] * 0xC2B2AE3D27D4EB4F + block * 0x165667B19E3779F9) % 2**63
        generator = torch.Generator().manual_seed(mixed)
        drawn = torch.randn(ROWS_PER_DRAW, dim, generator=generator)[:, first_column:end_column] * std
        start = block * ROWS_PER_DRAW
        low, high = max(start, first_row), min(start + ROWS_PER_DRAW, end)
        shard[low - first_row : high - first_row].copy_(drawn[low - start : high - start])
