"""Sixth stage: vocabularies, quantiles and normalisers, learned from the drafts of the training days."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import polars as pl

from pipeline.columns import DAY
from pipeline.manifest import Normaliser
from pipeline.samples.frames.encoding import Encoders, fit_normalisers, fit_quantiles, fit_vocabulary
from pipeline.samples.frames.tallies import COUNT, VALUE
from pipeline.samples.kept.results import Done, Receipt, Results, content_digest, key_of, results
from pipeline.samples.stages.draft import Draft, Drafted
from pipeline.spec.features import QuantileTable, VocabTable
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder

NORMALISERS = "_normalisers"  # beside the names of tables, which begin with a letter


class LearnedPart(Receipt):
    """What one task learned: a vocabulary (its digest), the boundaries of a table, or normalisers by feature."""

    digest: str
    boundaries: list[float] | None = None
    normalisers: dict[str, Normaliser] | None = None


@dataclass(frozen=True)
class LearnTask:
    """What to learn (the encoding of a table, or all normalisers), and the drafts and days to learn it from."""

    store: Folder
    spec: Spec
    name: str
    drafts: tuple[Results, ...]
    days: tuple[date, ...]

    @cached_property
    def results(self) -> Results:
        own = "features.*" if self.name == NORMALISERS else f"tables.{self.name}"
        parts = digest_of_parts("learned", self.spec, own)
        key = key_of(parts, sorted(draft.key for draft in self.drafts), self.days)
        return results(self.store, "learned", self.name, key)


def learn_tasks(store: Folder, spec: Spec, drafts: list[Done[Draft, Drafted]], train: set[date]) -> list[LearnTask]:
    """A task for every table that is learned, and one for the normalisers."""
    of_train = tuple(draft.task.results for draft in drafts if train & draft.receipt.days.keys())
    names = [name for name, table in spec.tables.items() if isinstance(table, VocabTable | QuantileTable)]
    return [LearnTask(store, spec, name, of_train, tuple(sorted(train))) for name in [*names, NORMALISERS]]


def learn(task: LearnTask) -> Done[LearnTask, LearnedPart]:
    """Learns one table, or the normalisers."""
    return task.results.get_or_make(task, LearnedPart, lambda: _learn(task))


def _learn(task: LearnTask) -> LearnedPart:
    table = task.spec.tables.get(task.name)
    match table:
        case VocabTable():
            vocabulary = fit_vocabulary(_counts(task), table)
            task.results.write("vocabulary", vocabulary)
            return LearnedPart(digest=content_digest(vocabulary))
        case QuantileTable():
            boundaries = fit_quantiles(_counts(task), table)
            return LearnedPart(digest=key_of(boundaries), boundaries=boundaries)
        case _:
            normalisers = fit_normalisers(pl.concat(_read(task, "sums")), task.spec)
            digest = key_of({name: norm.model_dump() for name, norm in normalisers.items()})
            return LearnedPart(digest=digest, normalisers=normalisers)


def _read(task: LearnTask, name: str) -> Iterator[pl.DataFrame]:
    for draft in task.drafts:
        yield draft.read(name).filter(pl.col(DAY).is_in(task.days))


def _counts(task: LearnTask) -> pl.DataFrame:
    """Value and count over the training days. One draft at a time: memory is that of the different values."""
    total: pl.DataFrame | None = None
    for counts in _read(task, f"values-{task.name}"):
        both = counts.select(VALUE, COUNT) if total is None else pl.concat([total, counts.select(VALUE, COUNT)])
        total = both.group_by(VALUE).agg(pl.col(COUNT).sum())
    assert total is not None
    return total


def read_encoders(learned: dict[str, tuple[Results, LearnedPart]]) -> Encoders:
    """All that was learned: by name, where it lies and its receipt."""
    boundaries = {name: part.boundaries for name, (_, part) in learned.items() if part.boundaries is not None}
    normalisers = [part.normalisers for _, part in learned.values() if part.normalisers is not None]
    vocabularies = {
        name: lies_in.read("vocabulary")
        for name, (lies_in, part) in learned.items()
        if part.boundaries is None and part.normalisers is None
    }
    return Encoders(vocabularies, boundaries, normalisers[0])
