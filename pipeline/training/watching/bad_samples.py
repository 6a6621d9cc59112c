"""Names the samples behind a loss that is not finite, for the error that ends a run after too many such steps."""

import torch.distributed as dist
from torch import Tensor

from models.losses import Objectives
from pipeline.batches.batch import Batch
from pipeline.spec.spec import Spec

NAMED = 5  # samples in a message


def bad_samples(spec: Spec, objectives: Objectives, outputs_BC: Tensor, batch: Batch, sample_ids: list[int]) -> str:
    """The objectives, scenes and samples of a global batch whose loss is not finite. Every rank calls it.

    `sample_ids` are those of this rank's rows, without the rows that only fill up the batch.
    """
    spaces = objectives.spaces(batch.masks, batch.scenes)
    losses = objectives.row_losses(outputs_BC, batch.labels, spaces)
    here = {}
    for (scene, objective, _), m_B, loss_B in zip(spec.terms, spaces, losses, strict=True):
        bad_rows = (m_B & ~(loss_B * batch.weight).isfinite()).nonzero().flatten().tolist()
        if bad_rows:
            here[objective, scene] = [sample_ids[row] for row in bad_rows]
    of_ranks: list[dict[tuple[str, str], list[int]]] = [{}] * dist.get_world_size()
    dist.all_gather_object(of_ranks, here)
    found: dict[tuple[str, str], list[int]] = {}
    for of_rank in of_ranks:
        for place, ids in of_rank.items():
            found.setdefault(place, []).extend(ids)
    if not found:
        return "each loss is finite, but the gradient is not"
    return "; ".join(f"`{o}` in scene `{s}`: {_named(ids)}" for (o, s), ids in found.items())


def _named(ids: list[int]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"sample {', '.join(map(str, ids[:NAMED]))}{more}"
