#!/usr/bin/env python3
"""Compares a peer's labels and counters with those of a sample store, row by row.

.venv/bin/python scripts/sample_peers/compare.py --samples demo/samples --peer labels.parquet
"""

from pathlib import Path

import polars as pl

from pipeline.columns import SAMPLE_ID
from pipeline.commands.command_line import run_script
from pipeline.errors import StrataError

TOLERANCE = 1e-5  # of counters, relative: a mean's float sum depends on its order; everything else must be equal


def main(samples: Path, peer: Path) -> None:
    """Fails unless both have the same rows with the same values in every column of the peer.

    It reads one column at a time: 10 million rows need less than 1 GB.

    Args:
        samples: The sample store.
        peer: The peer's Parquet file.
    """
    store, theirs = pl.scan_parquet(samples / "split=*/date=*/*.parquet"), pl.scan_parquet(peer)
    ids, their_ids = store.select(SAMPLE_ID).collect().to_series(), theirs.select(SAMPLE_ID).collect().to_series()
    order, their_order = ids.arg_sort(), their_ids.arg_sort()
    if not ids.gather(order).equals(their_ids.gather(their_order)):
        raise StrataError(
            f"its {their_ids.len():,} sample ids are not the store's {ids.len():,}",
            where=peer,
            fix="find out which is wrong",
        )
    columns = [column for column in theirs.collect_schema().names() if column != SAMPLE_ID]
    for column in columns:
        ours = store.select(column).collect().to_series().gather(order)
        other = theirs.select(column).collect().to_series().gather(their_order)
        same = ours.eq_missing(other)
        if column.startswith("feature_"):
            same |= ((ours - other).abs() <= TOLERANCE * ours.abs()).fill_null(False)
        if not same.all():
            row = same.not_().arg_true()[0]
            raise StrataError(
                f"{column}: {len(same) - same.sum():,} of {len(same):,} rows differ; sample {ids[order[row]]} has "
                f"{other[row]}, the store {ours[row]}",
                where=peer,
                fix="find out which is wrong",
            )
    print(f"{peer}: {len(ids):,} rows, {len(columns)} columns: equal")


if __name__ == "__main__":
    run_script(main, "--samples demo/samples --peer labels.parquet")
