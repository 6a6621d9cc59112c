"""Second stage: profiles with one row per key, or per key and beginning of validity."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl

from pipeline.raw.reading import REJECTED
from pipeline.samples.frames.outcomes import drop_repeats
from pipeline.samples.kept.results import Done, Receipt, Results, key_of, results
from pipeline.samples.stages.deal import count_reasons
from pipeline.samples.stages.pieces import Pieces, read_pieces
from pipeline.spec.logs import Profile
from pipeline.spec.parts import digest_of_parts
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


class Prepared(Receipt):
    """What became of the rows of a profile."""

    duplicates: int
    rejected: dict[str, int]


@dataclass(frozen=True)
class ProfileTask:
    """The rows of a profile: all, or those of the users of a partition."""

    store: Folder
    spec: Spec
    name: str
    pieces: Pieces

    @property
    def profile(self) -> Profile:
        return self.spec.logs.profiles[self.name]

    @cached_property
    def results(self) -> Results:
        parts = digest_of_parts("profiles", self.spec, self.spec.logs.key_in_spec(self.name))
        return results(self.store, "profiles", self.name, key_of(parts, [piece.key for piece in self.pieces]))


def prepare_profile(task: ProfileTask) -> Done[ProfileTask, Prepared]:
    """Drops copies, and rejects rows that repeat a key with other content; the first file by name wins."""

    def prepare() -> Prepared:
        rows = read_pieces(task.pieces, task.profile)
        unique = [column for column in (task.profile.key, task.profile.valid_from) if column]
        distinct = drop_repeats(rows, unique)
        kept, repeats = reject_repeats(distinct, unique, task.name)
        task.results.write("rows", kept)
        if len(repeats):
            task.results.write("rejected", repeats)
        return Prepared(duplicates=rows.height - distinct.height, rejected=count_reasons(repeats))

    return task.results.get_or_make(task, Prepared, prepare)


def reject_repeats(rows: pl.DataFrame, unique: list[str], table: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first row of each value of `unique`, and the others as rejected rows."""
    # One column is compared much faster than several, and usually differs in all rows.
    if rows.select(pl.col(unique[0]).is_first_distinct().all()).item():
        return rows, pl.DataFrame(schema=REJECTED)
    first = rows.select(pl.struct(unique).is_first_distinct()).to_series()
    repeats = rows.filter(~first).select(
        table=pl.lit(table),
        file=pl.lit(None, pl.String),
        reason=pl.lit(f"repeats the {', '.join(unique)} of another row"),
        record=pl.struct(pl.all()).struct.json_encode(),
    )
    return rows.filter(first), repeats
