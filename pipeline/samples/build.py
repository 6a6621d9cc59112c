"""From raw logs to the sample store: the steps in their order, each a function of its own room."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import get_args

import polars as pl

from pipeline.atomic import new_folder
from pipeline.errors import StrataError
from pipeline.manifest import EventCounts, LabelStatistics, Learned, Manifest, RawCounts, SplitName, Vocabulary
from pipeline.progress import Stages, stages
from pipeline.raw.expressions import parse
from pipeline.raw.reading import RawRows, read_table
from pipeline.samples.attribution import EVENT_TIME, Attributed, append_outcomes, attribute_events
from pipeline.samples.checker import DAY, IMPRESSION_TIME, LOCAL_DAY
from pipeline.samples.counters import append_counters
from pipeline.samples.encoding import Encoders, encode, fit_encoders, median_labels
from pipeline.samples.features import append_features
from pipeline.samples.labels import append_labels, bad_label, label_statistics
from pipeline.samples.lineage import check_lineage
from pipeline.samples.store import sample_columns, write_rejected, write_samples, write_vocabularies
from pipeline.spec import SAMPLE_ID, TIME, USER, WEIGHT, Logs, Spec, Split, scene_column
from pipeline.spec_file import load_spec

YEAR_2100_MS = 4_102_444_800_000


def build_samples(spec_path: Path, raw: Path, out: Path) -> Manifest:
    """Builds the samples of the logs in `raw` into the folder `out`, which must not exist yet.

    Raises StrataError, and leaves no store behind, if the spec is wrong, a file is missing or damaged, there are
    too few days to split, or an objective has no usable label.
    """
    spec = load_spec(spec_path)
    check_lineage(spec, spec_path)
    with new_folder(out) as folder, stages(total=7 + len(spec.logs.tables())) as progress:
        raw_rows = _read(spec.logs, raw, progress)

        progress.begin("attributing events to impressions")
        impressions = raw_rows["impression"].rows
        attributed = {
            name: attribute_events(impressions, raw_rows[name].rows, event, spec.logs)
            for name, event in spec.logs.events.items()
        }
        impressions = append_identity(impressions, spec.logs)
        samples, without_profile = append_profiles(impressions, raw_rows, spec.logs)
        samples = _derive(samples, spec)
        events = event_rows(samples, attributed, spec.logs)
        samples = append_outcomes(samples, attributed, spec.logs)

        if spec.counters:
            progress.begin("counting over earlier days")
            samples = append_counters(samples, events, spec.counters)
        progress.begin("labelling")
        samples = append_labels(samples, spec)
        _check_weights(samples, spec_path)
        split_of_day = split_days(samples[DAY].unique().to_list(), spec.split, raw)
        split = pl.col(DAY).replace_strict(split_of_day, return_dtype=pl.String)
        labels = _checked_labels(samples, split, spec, spec_path)
        progress.begin("looking up histories")
        samples = append_features(samples, events, spec)
        progress.begin("learning vocabularies and normalisers")
        encoders = fit_encoders(samples.filter(split == "train"), spec)
        progress.begin("encoding")
        samples = encode(samples, spec, encoders)
        baselines = median_labels(samples.filter(split == "train"), spec, encoders)

        progress.begin("writing")
        impression = spec.logs.impression
        stored = samples.with_columns(pl.col(impression.user).alias(USER), pl.col(impression.time).alias(TIME))
        files = write_samples(stored.select(DAY, *sample_columns(spec)), split_of_day, folder)
        write_rejected({name: table.rejected for name, table in raw_rows.items()}, folder)
        manifest = Manifest(
            spec=spec,
            fingerprint=spec.fingerprint(),
            raw_folder=str(raw.resolve()),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=files,
            learned=_learned(spec, encoders, baselines, write_vocabularies(encoders.vocabularies, folder)),
            labels=labels,
            raw={name: _raw_counts(table) for name, table in raw_rows.items()},
            events={name: _event_counts(of_kind) for name, of_kind in attributed.items()},
            without_profile=without_profile,
        )
        manifest.save(folder)
    return manifest


def _read(logs: Logs, raw: Path, progress: Stages) -> dict[str, RawRows]:
    """Every raw table. Ids and times may not be missing; an id of event logs and a profile's key are unique."""
    impression = logs.impression
    required = {"impression": {*impression.id, impression.user, impression.video, impression.time}}
    required |= {name: {*impression.id, event.time} for name, event in logs.events.items()}
    required |= {name: {profile.key} for name, profile in logs.profiles.items()}
    unique = {name: [profile.key] for name, profile in logs.profiles.items()}
    if logs.events:
        unique["impression"] = list(impression.id)
    # One row dated far off would otherwise be a test split of its own.
    sane_time = {name: (f'"{table.time}" between 0 and {YEAR_2100_MS}',) for name, table in logs.timed().items()}
    tables = {}
    for name, table in logs.tables().items():
        progress.begin(f"reading {name}")
        timed = table.model_copy(update={"checks": (*table.checks, *sane_time.get(name, ()))})
        tables[name] = read_table(name, timed, raw, required=required[name], unique=unique.get(name, []))
    if tables["impression"].rows.is_empty():
        raise StrataError(
            f"none of the {tables['impression'].read} impressions is usable", where=raw, fix="compare it with the spec"
        )
    return tables


def append_identity(impressions: pl.DataFrame, logs: Logs) -> pl.DataFrame:
    """Adds `sample_id`, `impression_time` and `local_day` in the spec's time zone, and the `day` of filing.

    An id of several columns is their text joined by "-"; interaction logs may repeat an id with other content:
    the second such row gets "#1", in the order of the rows' content.
    """
    local = pl.from_epoch(logs.impression.time, time_unit="ms").dt.replace_time_zone("UTC")
    local = local.dt.convert_time_zone(logs.timezone).dt.replace_time_zone(None)
    impressions = impressions.with_columns(local.alias(IMPRESSION_TIME), local.dt.date().alias(LOCAL_DAY))
    day = parse(logs.day).cast(pl.Date) if logs.day else pl.col(LOCAL_DAY)
    ids = logs.impression.id
    sample_id = pl.col(ids[0]) if len(ids) == 1 else pl.concat_str(ids, separator="-")
    impressions = impressions.with_columns(day.alias(DAY), sample_id.alias(SAMPLE_ID))
    if nulls := impressions[DAY].null_count():
        raise StrataError(f"logs.day is null for {nulls} impressions", where=logs.day, fix="correct the expression")
    if not logs.events:
        repeat = pl.int_range(pl.len()).over(SAMPLE_ID)
        numbered = pl.when(repeat > 0).then(pl.format("{}#{}", SAMPLE_ID, repeat)).otherwise(SAMPLE_ID)
        impressions = impressions.sort(pl.all()).with_columns(numbered.alias(SAMPLE_ID))
    return impressions


def append_profiles(
    impressions: pl.DataFrame, raw_rows: dict[str, RawRows], logs: Logs
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Joins each profile by its key; also returns how many impressions found no row in it."""
    without = {}
    for name, profile in logs.profiles.items():
        rows = raw_rows[name].rows
        without[name] = impressions.join(rows, on=profile.key, how="anti").height
        impressions = impressions.join(rows, on=profile.key, how="left", maintain_order="left")
    return impressions, without


def _derive(samples: pl.DataFrame, spec: Spec) -> pl.DataFrame:
    """Adds the spec's derived columns, each of which may use those before it."""
    for name, expression in spec.columns.items():
        samples = samples.with_columns(parse(expression).alias(name))
    return samples


def event_rows(samples: pl.DataFrame, attributed: dict[str, Attributed], logs: Logs) -> dict[str, pl.DataFrame]:
    """For each kind of event its rows: the impression's columns, the event's values, its time and local day.

    `impression` is among the kinds: its time is the impression's own.
    """
    rows = {"impression": samples.with_columns(pl.col(logs.impression.time).alias(EVENT_TIME))}
    ids = list(logs.impression.id)
    for name, of_kind in attributed.items():
        local = pl.from_epoch(EVENT_TIME, time_unit="ms").dt.replace_time_zone("UTC")
        rows[name] = of_kind.events.join(samples, on=ids, how="inner").with_columns(
            local.dt.convert_time_zone(logs.timezone).dt.date().alias(LOCAL_DAY)
        )
    return rows


def split_days(days: Iterable[date], split: Split, raw: Path) -> dict[object, SplitName]:
    """The split of each day: the last ones are for test, those before for validation, the rest for training."""
    ordered = sorted(days)
    needed = split.valid_days + split.test_days
    if len(ordered) <= needed:
        raise StrataError(
            f"has impressions on {len(ordered)} days, but validation and test alone take {needed}",
            where=raw,
            fix="add earlier days, or lower `split` in the spec",
        )
    train = len(ordered) - needed
    valid = train + split.valid_days
    return {d: "train" if i < train else "valid" if i < valid else "test" for i, d in enumerate(ordered)}


def _check_weights(samples: pl.DataFrame, source: Path) -> None:
    wrong = samples.filter(~(pl.col(WEIGHT).is_finite() & (pl.col(WEIGHT) >= 0)).fill_null(False)).height
    if wrong:
        raise StrataError(f"sample_weight: {wrong} samples have none, or a negative one", where=source,
                          fix="correct the expression")  # fmt: skip


def _checked_labels(
    samples: pl.DataFrame, split: pl.Expr, spec: Spec, source: Path
) -> dict[str, dict[SplitName, LabelStatistics]]:
    """Label statistics by objective and split; refuses labels from which nothing can be learned."""
    in_scene = pl.any_horizontal(pl.col(scene_column(scene)) for scene in spec.scenes)
    if not samples.select(in_scene.any()).item():
        raise StrataError("scenes: none of the impressions is in any scene", where=source, fix="correct their `where`")
    by_split = {name: label_statistics(samples.filter(split == name), spec) for name in get_args(SplitName)}
    for name, objective in spec.objectives.items():
        problem = bad_label(objective, {split: labels[name] for split, labels in by_split.items()})
        if problem:
            raise StrataError(f"objectives.{name}.label {problem}", where=source,
                              fix="correct the label, or remove the objective")  # fmt: skip
    return {name: {split: labels[name] for split, labels in by_split.items()} for name in spec.objectives}


def _learned(
    spec: Spec, encoders: Encoders, baselines: dict[str, list[float]], vocabularies: dict[str, Vocabulary]
) -> Learned:
    return Learned(
        table_rows={name: encoders.rows(name, table) for name, table in spec.tables.items()},
        vocabularies=vocabularies,
        boundaries=encoders.boundaries,
        normalisers=encoders.normalisers,
        baselines=baselines,
    )


def _raw_counts(table: RawRows) -> RawCounts:
    reasons = table.rejected.group_by("reason").len().sort("reason")
    return RawCounts(
        read=table.read, kept=table.rows.height, duplicates=table.duplicates, rejected=dict(reasons.iter_rows())
    )


def _event_counts(of_kind: Attributed) -> EventCounts:
    return EventCounts(
        attributed=of_kind.events.height,
        without_impression=of_kind.without_impression,
        outside_window=of_kind.outside_window,
    )
