"""The context of an impression: the profiles in force, and the derived columns."""

from collections.abc import Mapping

import polars as pl

from pipeline.columns import DAY, IMPRESSION_TIME, LOCAL_DAY, SAMPLE_ID, TIME, USER
from pipeline.samples.frames.days import local_time
from pipeline.spec.logs import Logs, Profile
from pipeline.spec.spec import Spec
from pipeline.sql.expressions import parse

REPEAT = " repeats so far"  # of an impression's id, earlier in the order of the rows


def append_context(impressions: pl.LazyFrame, profiles: Mapping[str, pl.LazyFrame], spec: Spec) -> pl.LazyFrame:
    """Adds `impression_time`, `local_day`, the `day` of filing, profile columns and the spec's derived columns.

    Rows keep their order. Columns that nobody asks for later cost nothing: Polars leaves them out.
    """
    logs = spec.logs
    impressions = impressions.with_columns(
        local_time(pl.col(logs.impression.time), logs.timezone).alias(IMPRESSION_TIME)
    )
    impressions = impressions.with_columns(pl.col(IMPRESSION_TIME).dt.date().alias(LOCAL_DAY))
    day = parse(logs.day).cast(pl.Date) if logs.day else pl.col(LOCAL_DAY)
    impressions = impressions.with_columns(day.alias(DAY))
    for name, profile in logs.profiles.items():
        impressions = append_profile(impressions, profiles[name], name, profile, logs.impression.time)
    for name, expression in spec.columns.items():
        impressions = impressions.with_columns(parse(expression).alias(name))
    return impressions


def append_profile(
    impressions: pl.LazyFrame, rows: pl.LazyFrame, name: str, profile: Profile, time: str
) -> pl.LazyFrame:
    """Adds the profile's columns, and `without_column(name)`: true where no row of the profile is in force."""
    missing = without_column(name)
    if profile.valid_from is None:
        found = impressions.join(
            rows.with_columns(pl.lit(False).alias(missing)), on=profile.key, how="left", maintain_order="left"
        )
        return found.with_columns(pl.col(missing).fill_null(True))
    begins, ends, asked = " valid from", " valid to", " asked row"  # no column of a log starts with a blank
    rows = rows.select(
        profile.key,
        *profile.values,
        pl.col(profile.valid_from).alias(begins),
        pl.col(profile.valid_to).alias(ends) if profile.valid_to else pl.lit(None, pl.Int64).alias(ends),
    )
    numbered = impressions.with_row_index(asked).sort(time)
    found = numbered.join_asof(
        rows.sort(begins), left_on=time, right_on=begins, by=profile.key, strategy="backward", check_sortedness=False
    ).sort(asked)
    in_force = pl.col(begins).is_not_null() & (pl.col(ends).is_null() | (pl.col(ends) > pl.col(time)))
    return found.with_columns(
        *(pl.when(in_force).then(value).alias(value) for value in profile.values), (~in_force).alias(missing)
    ).drop(asked, begins, ends)


def without_column(profile: str) -> str:
    return f" without {profile}"


def count_repeats(impressions: pl.DataFrame, logs: Logs) -> pl.DataFrame:
    """Adds how many earlier rows have the same id: interaction logs may repeat an id with other content."""
    ids = list(dict.fromkeys((*logs.impression.id, logs.impression.user)))
    if logs.events or impressions.select(pl.struct(ids).is_first_distinct().all()).item():
        return impressions.with_columns(pl.lit(0).alias(REPEAT))
    return impressions.with_columns(pl.int_range(pl.len()).over(ids).alias(REPEAT))


def append_identity(impressions: pl.LazyFrame, logs: Logs) -> pl.LazyFrame:
    """Adds `sample_id`, `user_id` and `time_ms`.

    An id of several columns is their text joined by "-". The second row of interaction logs with the same id on a day
    gets "#1", in the order of the rows' content.
    """
    ids = logs.impression.id
    sample_id = pl.col(ids[0]) if len(ids) == 1 else pl.concat_str(ids, separator="-")
    if not logs.events:
        numbered = pl.format("{}#{}", sample_id, pl.col(REPEAT))
        sample_id = pl.when(pl.col(REPEAT) > 0).then(numbered).otherwise(sample_id.cast(pl.String))
    return impressions.with_columns(
        sample_id.alias(SAMPLE_ID), pl.col(logs.impression.user).alias(USER), pl.col(logs.impression.time).alias(TIME)
    )
