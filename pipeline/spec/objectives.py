"""Objectives, which a model learns, and scenes, in which it learns them."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.spec.part import Part, Sql, Weight


class BinaryObjective(Part):
    """A yes or no, learned with the logistic loss; `where` is its sample space."""

    kind: Literal["binary"]
    label: Sql
    where: Sql | None = None


class RegressionObjective(Part):
    """A non-negative number in `unit`, learned after `transform` and predicted in its own unit.

    The report holds it against the median training label of the rows that share the value of `baseline_by`.
    """

    kind: Literal["regression"]
    label: Sql
    where: Sql | None = None
    unit: str = ""
    transform: Literal["none", "log1p"] = "none"
    loss: Literal["mse", "mae", "huber"] = "mse"
    baseline_by: str | None = None


AnyObjective = Annotated[BinaryObjective | RegressionObjective, Field(discriminator="kind")]


class Scene(Part):
    """A named subset of the rows, with the weight of each objective that is learned on it."""

    where: Sql
    weights: dict[str, Weight]
