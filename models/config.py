"""The options of the model: `--model.head mmoe` and the like."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

Widths = tuple[PositiveInt, ...]


class ModelConfig(BaseModel):
    """Shape of the dense network; the embedding tables and the outputs come from the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: Literal["single_task", "shared_bottom", "moe", "mmoe", "cgc", "ple"] = "ple"
    """How the towers share the network below them, from nothing (single_task) to everything (shared_bottom)."""
    towers: Literal["objective", "scene"] = "objective"
    """One tower per objective, used in all its scenes; or one per scene, with an output for each of its objectives."""
    levels: PositiveInt = 2
    """Stacked extraction levels of ple; cgc is one level, and the other heads have none."""
    shared_experts: PositiveInt = 2
    """Experts open to every tower: in each level of ple, in cgc, and all there are in moe and mmoe."""
    own_experts: PositiveInt = 1
    """Experts that belong to one tower, for each tower: in each level of ple and in cgc."""
    expert: Annotated[Widths, Field(min_length=1)] = (64,)
    """Layer widths of an expert; also of each network of single_task and of the one of shared_bottom."""
    gate: Widths = ()
    """Hidden layers of the gates, before their softmax; none makes a gate linear, as published."""
    bottom: Widths = ()
    """Layers shared by all, between the features and the head."""
    tower: Widths = (32,)
    """Hidden layers of a tower, before its linear outputs."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """After every hidden layer."""
    norm: Literal["none", "layer"] = "none"
    """Normalisation between a hidden layer and its activation."""
    dropout: Annotated[NonNegativeFloat, Field(lt=1)] = 0.0
    """Share of each hidden layer's activations that a training step zeroes."""
