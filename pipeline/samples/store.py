"""What lies beside the samples: vocabularies, rejected rows, statistics; and, last of all, the manifest."""

import hashlib
import io
from datetime import date
from functools import partial
from typing import IO, get_args

import polars as pl
import pyarrow.parquet as pq

from pipeline.columns import DAY
from pipeline.errors import StrataError
from pipeline.json_files import sealed
from pipeline.manifest import MANIFEST, LabelStatistics, Manifest, SplitName, Vocabulary, read_manifest
from pipeline.raw.reading import REJECTED
from pipeline.samples.kept.lock import flush_kept_work
from pipeline.samples.kept.results import RECEIPT, WORK, Results
from pipeline.spec.spec import Spec
from pipeline.statistics import STATISTICS, DayStatistics, SceneStatistics, Statistics
from pipeline.storage import FileInfo, Folder

OURS = ("split=", "vocabularies/")  # how the names of sample files and vocabularies begin


def write_vocabularies(vocabularies: dict[str, pl.DataFrame], store: Folder) -> dict[str, Vocabulary]:
    """Writes `vocabularies/<table>-<digest>.parquet`."""
    written = {}
    for name, vocabulary in vocabularies.items():
        content = _parquet(vocabulary)
        digest = hashlib.sha256(content).hexdigest()
        path = f"vocabularies/{name}-{digest[:8]}.parquet"
        if not store.exists(path):
            store.write(path, content)
        written[name] = Vocabulary(path=path, sha256=digest)
    return written


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def _write_parts(parts: list[Results], file: IO[bytes]) -> None:
    """One part in memory at a time: there is no limit to the rows that a log can get wrong."""
    schema = pl.DataFrame(schema=REJECTED).to_arrow().schema
    with pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(part.read("rejected").to_arrow().cast(schema))


def write_store(
    manifest: Manifest, statistics: Statistics, rejected: dict[str, list[Results]], used: set[str], store: Folder
) -> None:
    """Writes `rejected/<table>.parquet` (table, file, reason, record), the statistics and, last, the manifest.

    Then deletes what the store before left: first the results of tasks that are not among the `used`, then files that
    neither this manifest nor the one before names. In this order no task can seem done whose files are gone.

    Files that this manifest replaces stay, because readers of the one before may not be done. They go with the next
    build that replaces some. A build that replaces none deletes none: the readers of the store before it, and of the
    one before that, keep their files.
    """
    for name, parts in rejected.items():
        store.write(f"rejected/{name}.parquet", partial(_write_parts, parts))
    store.write(STATISTICS, sealed(statistics.model_dump_json(indent=1).encode()))
    flush_kept_work(store)
    before = _named_before(store)
    store.write(MANIFEST, manifest.as_file())

    found = [file.name for file in store.files(through_links=False)]
    results = [name for name in found if name.startswith(f"{WORK}/") and name.count("/") > 1]
    stale = [name for name in results if f"{store.path}/{name.rsplit('/', 1)[0]}" not in used]
    store.delete(sorted(stale, key=lambda name: not name.endswith(RECEIPT)))
    named = {f"rejected/{name}.parquet" for name in rejected}
    store.delete([name for name in found if name.startswith("rejected/") and name not in named])
    if before != manifest.paths():
        named = before | manifest.paths()
        store.delete([name for name in found if name.startswith(OURS) and name not in named])


def _named_before(store: Folder) -> set[str]:
    """The files that the store's manifest names; none if there is no manifest that this version reads."""
    try:
        return read_manifest(store).paths()
    except StrataError:
        return set()


def replaced_files(manifest: Manifest, store: Folder) -> list[FileInfo]:
    """Sample files and vocabularies of earlier builds that are still there."""
    named = manifest.paths()
    return [f for f in store.files(through_links=False) if f.name.startswith(OURS) and f.name not in named]


def statistics_of_days(
    tally: pl.DataFrame, splits: dict[date, SplitName], spec: Spec
) -> tuple[dict[str, dict[SplitName, LabelStatistics]], dict[date, DayStatistics]]:
    """Label statistics by objective and split, and what there is to say of every day but for vocabularies."""
    split = pl.col(DAY).replace_strict(splits, return_dtype=pl.String)
    labels = tally.filter(pl.col("what") == "label")
    overall = labels.filter(pl.col("scene").is_null()).with_columns(split.alias("split")).drop(DAY)
    by_split = {
        name: {of: _label_statistics(overall, split=of, name=name) for of in get_args(SplitName)}
        for name in spec.objectives
    }
    return by_split, {day: _day(tally.filter(pl.col(DAY) == day), day, splits[day], spec) for day in sorted(splits)}


def _label_statistics(labels: pl.DataFrame, **where: str) -> LabelStatistics:
    found = labels.filter(**where)
    rows = int(found["rows"].sum())
    mean = float(found["sum"].sum()) / rows if rows else None
    return LabelStatistics.model_validate(
        {"rows": rows, "mean": mean, "min": found["min"].min(), "max": found["max"].max()}
    )


def _day(tally: pl.DataFrame, day: date, split: SplitName, spec: Spec) -> DayStatistics:
    of = {str(what): rows for (what,), rows in tally.partition_by("what", as_dict=True).items()}
    rows = {scene: number for scene, number in of["rows"].select("scene", "rows").iter_rows()}
    missing = dict(of["missing"].select("name", "rows").iter_rows()) if "missing" in of else {}
    labels = of.get("label", tally.clear())
    scenes = {
        scene: SceneStatistics(
            rows=rows.get(scene, 0),
            labels={name: _label_statistics(labels, scene=scene, name=name) for name in declared.weights},
        )
        for scene, declared in spec.scenes.items()
    }
    lengths: dict[str, list[int]] = {}
    for name, at, number in of.get("length", tally.clear()).sort("name", "at").select("name", "at", "rows").iter_rows():
        of_name = lengths.setdefault(name, [])
        of_name.extend([0] * (at + 1 - len(of_name)))
        of_name[at] = number
    return DayStatistics(
        date=str(day),
        split=split,
        rows=rows[None],
        scenes=scenes,
        lengths=lengths,
        ids={},
        outside={},
        missing={name: missing.get(name, 0) for name in spec.features},
    )
