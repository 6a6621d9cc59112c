"""From outputs to losses and predictions.

    L = Σ_scene Σ_objective  W[scene, objective] · ( Σ_rows m · c · ℓ(ŷ, y) ) / max(1, Σ_rows m · c)

Shapes: B rows, C output columns, O objectives, S scenes, K terms of the loss, one for each of `spec.terms`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.towers import OutputLayout
from pipeline.spec.objectives import AnyObjective, BinaryObjective
from pipeline.spec.spec import Spec

# Each gives ℓ of every row.
REGRESSION_LOSSES: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}


def row_loss(objective: AnyObjective, output_B: Tensor, label_B: Tensor) -> Tensor:
    """ℓ(ŷ, y) of each row, [B]: the logistic loss of a logit, or a regression loss after the label's transform."""
    if isinstance(objective, BinaryObjective):
        return F.binary_cross_entropy_with_logits(output_B, label_B, reduction="none")
    target_B = label_B.log1p() if objective.transform == "log1p" else label_B
    return REGRESSION_LOSSES[objective.loss](output_B, target_B, reduction="none")


def row_prediction(objective: AnyObjective, output_B: Tensor) -> Tensor:
    """The prediction of each row, [B]: a probability, or a number of at least 0 in the objective's own unit."""
    if isinstance(objective, BinaryObjective):
        return output_B.sigmoid()
    return (output_B.expm1() if objective.transform == "log1p" else output_B).clamp(min=0)


class Objectives:
    """The loss and the predictions of all objectives of a spec, from the outputs laid out by `layout`."""

    def __init__(self, spec: Spec, layout: OutputLayout) -> None:
        """Results are on the device of the arguments."""
        self.objectives = list(spec.objectives.values())
        self.layout = layout
        self._weights_K = torch.tensor([term.weight for term in layout.terms])

    def weighted_sums(
        self, outputs_BC: Tensor, labels_BO: Tensor, masks_BO: Tensor, scenes_BS: Tensor, weight_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The results of `losses` and `weights`, both [K]."""
        losses_K = self.losses(outputs_BC, labels_BO, masks_BO, scenes_BS, weight_B)
        return losses_K, self.weights(masks_BO, scenes_BS, weight_B)

    def weights(self, masks_BO: Tensor, scenes_BS: Tensor, weight_B: Tensor) -> Tensor:
        """Σ m·c of every term over these rows, [K]; m is true where both mask and scene are."""
        return torch.stack([torch.where(m_B, weight_B, 0.0).sum() for m_B in self.spaces(masks_BO, scenes_BS)])

    def losses(
        self, outputs_BC: Tensor, labels_BO: Tensor, masks_BO: Tensor, scenes_BS: Tensor, weight_B: Tensor
    ) -> Tensor:
        """Σ m·c·ℓ of every term over these rows, [K].

        The sums over the parts of a batch add up to those of the batch; so do the weights. Where m is false, labels
        may be anything, also NaN: they touch neither value nor gradient.
        """
        spaces = self.spaces(masks_BO, scenes_BS)
        losses = self.row_losses(outputs_BC, labels_BO, spaces)
        return torch.stack(
            [(torch.where(m_B, weight_B, 0.0) * loss_B).sum() for m_B, loss_B in zip(spaces, losses, strict=True)]
        )

    def row_losses(self, outputs_BC: Tensor, labels_BO: Tensor, spaces: list[Tensor]) -> list[Tensor]:
        """ℓ of every row for every term, K tensors [B]. Where the term's `spaces` are false, the label counts as 0."""
        outputs_BC = outputs_BC.float()
        losses = []
        for term, m_B in zip(self.layout.terms, spaces, strict=True):
            label_B = torch.where(m_B, labels_BO[:, term.objective], 0.0)
            losses.append(row_loss(self.objectives[term.objective], outputs_BC[:, term.column], label_B))
        return losses

    def spaces(self, masks_BO: Tensor, scenes_BS: Tensor) -> list[Tensor]:
        """The m of every term, K bool tensors [B]."""
        return [scenes_BS[:, term.scene] & masks_BO[:, term.objective] for term in self.layout.terms]

    def combine(self, numerators_K: Tensor, denominators_K: Tensor) -> Tensor:
        """L, a scalar, from the results of `losses` and `weights`, both [K].

        For a part of the global batch, pass the losses of that part and the weights of the whole batch. The results of
        the parts then add up to L of the global batch, and so do their gradients. They must be added, not averaged.
        """
        self._weights_K = self._weights_K.to(numerators_K)  # kept there: a copy in every step would stop the GPU
        return (self._weights_K * numerators_K / denominators_K.clamp(min=1)).sum()

    def predict(self, outputs_BC: Tensor, scenes_BS: Tensor) -> Tensor:
        """Probabilities, and numbers in their own unit, [B, O], from the outputs that `layout.select` picks."""
        selected = self.layout.select(outputs_BC.float(), scenes_BS).unbind(dim=1)
        return torch.stack([row_prediction(o, y_B) for o, y_B in zip(self.objectives, selected, strict=True)], dim=1)
