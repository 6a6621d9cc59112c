"""Steps whose loss or gradient is not finite: they are skipped and counted, and too many in a row end the run."""

import torch.distributed as dist
from torch import Tensor

from models.losses import Objectives
from pipeline.batches.batch import Batch
from pipeline.spec.spec import Spec

NAMED = 5  # samples in a message


def culprits(spec: Spec, objectives: Objectives, outputs_BC: Tensor, batch: Batch, samples: list[int]) -> str:
    """Which objectives, scenes and samples of a global batch have a loss that is not finite; every rank calls it.

    `samples` are the ids of this rank's rows, without those that only fill up the batch.
    """
    spaces = objectives.spaces(batch.masks, batch.scenes)
    losses = objectives.row_losses(outputs_BC, batch.labels, spaces)
    here = {}
    for (scene, objective, _), m_B, loss_B in zip(spec.terms, spaces, losses, strict=True):
        wrong = (m_B & ~(loss_B * batch.weight).isfinite()).nonzero().flatten().tolist()
        if wrong:
            here[objective, scene] = [samples[row] for row in wrong]
    told: list[dict[tuple[str, str], list[int]]] = [{}] * dist.get_world_size()
    dist.all_gather_object(told, here)
    found: dict[tuple[str, str], list[int]] = {}
    for of_rank in told:
        for place, ids in of_rank.items():
            found.setdefault(place, []).extend(ids)
    if not found:
        return "each loss is finite, but the gradient is not"
    return "; ".join(f"`{o}` in scene `{s}`: {_named(ids)}" for (o, s), ids in found.items())


def _named(ids: list[int]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"sample {', '.join(map(str, ids[:NAMED]))}{more}"
