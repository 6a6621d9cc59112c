"""The typed spec: what a file in `feature_specs/` may say.

It knows names and types. Expressions are SQL over Polars columns: `pipeline/sql/lineage.py` checks them, also before
any data is read. Nothing learned from data belongs here.
"""

import hashlib
from datetime import date
from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.spec.agreement import check_features, check_logs, check_scenes, check_split
from pipeline.spec.features import AnyFeature, AnyTable, Counters, DenseFeature, SparseFeature
from pipeline.spec.logs import Logs
from pipeline.spec.objectives import AnyObjective, Scene
from pipeline.spec.part import MOST_NAMES, Days, Name, Part, Sql


class Split(Part):
    """Which days are for training, validation and test, in this order.

    It goes by number, which counts the last days of the log, or by the dates on which validation and test begin. With
    dates, a day that is added to the log changes nothing about the days before it.
    """

    valid_days: Days = 1
    test_days: Days = 1
    valid_from: date | None = None
    test_from: date | None = None


class Downsample(Part):
    """Of the training rows where `where` holds, the share `keep` stays, with weights divided by `keep`."""

    where: Sql
    keep: Annotated[float, Field(strict=True, gt=0, le=1)]


class Spec(Part):
    """A whole spec; samples, tables, towers, losses, metrics and report sections are derived from it."""

    name: Name
    logs: Logs
    split: Split = Split()
    columns: dict[Name, Sql] = Field(default_factory=dict, max_length=MOST_NAMES)
    counters: Counters | None = None
    tables: Annotated[dict[Name, AnyTable], Field(max_length=MOST_NAMES)]
    features: Annotated[dict[Name, AnyFeature], Field(min_length=1, max_length=MOST_NAMES)]
    objectives: Annotated[dict[Name, AnyObjective], Field(min_length=1, max_length=MOST_NAMES)]
    scenes: Annotated[dict[Name, Scene], Field(min_length=1, max_length=MOST_NAMES)]
    filter: Sql | None = None
    """An impression that does not meet it becomes no sample. Histories and counters still see it."""
    downsample: tuple[Downsample, ...] = ()
    """The first rule whose `where` holds for a row applies to it."""
    sample_weight: Sql | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        check_logs(self.logs)
        check_split(self.split.valid_from, self.split.test_from)
        check_features(self.features, self.tables, self.counters, self.logs)
        check_scenes(self.scenes, self.objectives, self.features)
        return self

    def fingerprint(self) -> str:
        """Tells apart specs that say anything else; it travels with runs and predictions.

        What samples depend on has a fingerprint of its own (`pipeline/spec/parts.py`).
        """
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()

    @cached_property
    def hash_of_content(self) -> int:
        return hash(self.model_dump_json())

    def __hash__(self) -> int:
        return self.hash_of_content

    @property
    def sparse_features(self) -> dict[str, SparseFeature]:
        return {name: f for name, f in self.features.items() if not isinstance(f, DenseFeature)}

    @property
    def dense_features(self) -> dict[str, DenseFeature]:
        return {name: f for name, f in self.features.items() if isinstance(f, DenseFeature)}

    @property
    def standardised(self) -> list[str]:
        """The dense features that need a mean and a standard deviation."""
        return [name for name, feature in self.dense_features.items() if "standardise" in feature.normalise]

    @property
    def terms(self) -> list[tuple[str, str, float]]:
        """The (scene, objective, weight) triples of the loss, in the order of the spec."""
        return [(s, o, w) for s, scene in self.scenes.items() for o, w in scene.weights.items()]
