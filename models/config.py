"""The options of the model: `--model.head mmoe` and the like."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt

Widths = tuple[PositiveInt, ...]


class ModelConfig(BaseModel):
    """Shape of the dense network; the embedding tables and the outputs come from the spec."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: Literal["single_task", "shared_bottom", "moe", "mmoe", "cgc", "ple"] = "ple"
    """How much of the network below them the towers share, from nothing (single_task) to everything (shared_bottom)."""
    towers: Literal["objective", "scene"] = "objective"
    """One tower per objective for all its scenes, or one per scene with an output for each of its objectives."""
    levels: PositiveInt = 2
    """Extraction levels of ple; cgc has one level, and the other heads have none."""
    shared_experts: PositiveInt = 2
    """Experts shared by all towers: of each level of ple, of cgc, and all experts of moe and mmoe."""
    own_experts: PositiveInt = 1
    """Experts of each tower alone: of each level of ple, and of cgc."""
    expert: Annotated[Widths, Field(min_length=1)] = (64,)
    """Layer widths of an expert, of each network of single_task, and of the network of shared_bottom."""
    gate: Widths = ()
    """Widths of the hidden layers of a gate; without any, a gate is linear, as published."""
    bottom: Widths = ()
    """Widths of the layers between the features and the head, shared by all towers."""
    tower: Widths = (32,)
    """Widths of the hidden layers of a tower, before its linear outputs."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """Activation of every hidden layer."""
    norm: Literal["none", "layer"] = "none"
    """Normalisation between a hidden layer and its activation."""
    dropout: Annotated[NonNegativeFloat, Field(lt=1)] = 0.0
    """Share of each hidden layer's activations that a training step zeroes."""
