"""The towers, and which of their output columns belongs to which objective in which scene.

Shapes: B rows, T towers, H input of a tower, C output columns, O objectives, S scenes, K terms of the loss.
Columns run tower by tower. C is O with a tower per objective, and K with a tower per scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.linear import Linear
from models.mlp import MLP
from pipeline.spec.spec import Spec


@dataclass(frozen=True)
class Term:
    """One term of the loss: the positions of its scene, its objective and its output column, and its weight."""

    scene: int
    objective: int
    column: int
    weight: float


@dataclass(frozen=True)
class OutputLayout:
    """How many columns each of the T towers has, how many objectives there are, and the K terms in spec order."""

    objectives: int
    widths: tuple[int, ...]
    terms: tuple[Term, ...]

    @classmethod
    def from_spec(cls, spec: Spec, towers: Literal["objective", "scene"]) -> Self:
        """A column per objective, or a column per (scene, objective) of `spec.terms`."""
        scenes, objectives = list(spec.scenes), list(spec.objectives)
        terms = tuple(
            Term(scenes.index(s), objectives.index(o), objectives.index(o) if towers == "objective" else k, weight)
            for k, (s, o, weight) in enumerate(spec.terms)
        )
        if towers == "objective":
            return cls(len(objectives), (1,) * len(objectives), terms)
        return cls(len(objectives), tuple(len(scene.weights) for scene in spec.scenes.values() if scene.weights), terms)

    def select(self, outputs_BC: Tensor, scenes_BS: Tensor) -> Tensor:
        """One output of each row for each objective, [B, O]. `scenes_BS` is bool.

        It is the output of the first scene, in the spec's order, that contains the row and learns the objective. If
        there is none, it is that of the first scene that learns the objective.
        """
        selected = []
        for objective in range(self.objectives):
            terms = [term for term in self.terms if term.objective == objective]
            outputs = torch.stack([outputs_BC[:, term.column] for term in terms], dim=1)
            contains = torch.stack([scenes_BS[:, term.scene] for term in terms], dim=1)
            # argmax gives the first True, and 0 where there is none.
            selected.append(outputs.gather(1, contains.long().argmax(dim=1, keepdim=True)))
        return torch.cat(selected, dim=1)


class Tower(nn.Module):
    """The network h_k, [B, H] -> [B, columns]: the hidden layers of `config.tower`, then a linear one."""

    def __init__(self, d_in: int, columns: int, config: ModelConfig) -> None:
        super().__init__()
        self.hidden = MLP(d_in, config.tower, config)
        self.output = Linear(self.hidden.d_out, columns)

    def forward(self, x_BH: Tensor) -> Tensor:
        """The columns, in the precision of the last layer; the hidden layers may be less precise."""
        outputs: Tensor = self.output(self.hidden(x_BH).to(self.output.weight.dtype))
        return outputs


class Towers(nn.Module):
    """T towers side by side, with as many columns as an `OutputLayout` gives each."""

    def __init__(self, d_in: int, layout: OutputLayout, config: ModelConfig) -> None:
        """Each tower takes its own representation, of width `d_in`."""
        super().__init__()
        self.towers = nn.ModuleList(Tower(d_in, columns, config) for columns in layout.widths)

    def forward(self, representations: Sequence[Tensor]) -> Tensor:
        """From T tensors [B, H] to the columns [B, C]."""
        return torch.cat([h(x_BH) for h, x_BH in zip(self.towers, representations, strict=True)], dim=1)
