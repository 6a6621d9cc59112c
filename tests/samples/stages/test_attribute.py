"""Impressions of a partition and day come in one order, whatever the order of the log."""

import numpy as np
import polars as pl

from pipeline.samples.frames.hashing import user_hash
from pipeline.samples.stages.attribute import HASH, sort_impressions
from pipeline.spec.logs import Logs

LOGS = Logs.model_validate(
    {
        "impression": {
            "files": "log",
            "columns": dict.fromkeys(("id", "user", "time_ms", "clicked"), "int64"),
            "id": ["id"],
            "user": "user",
            "video": "id",
            "time": "time_ms",
            "outcomes": ["clicked"],
        },
    }
)


def test_impressions_of_one_ms_are_in_the_order_of_their_ids_and_their_content() -> None:
    """For users with large hashes, from 2^63 on, as for those with small ones."""
    users = range(40)
    hashes = user_hash(pl.Series(users))
    assert (hashes >= 2**63).any()
    assert (hashes < 2**63).any()
    rows = [(shown, user, 1000 + user % 3, clicked) for user in users for shown in (1, 2) for clicked in (0, 1)]
    log = pl.DataFrame(rows, schema=["id", "user", "time_ms", "clicked"], orient="row")
    expected = sorted(rows, key=lambda row: (int(hashes[row[1]]), row[2], row[0], row[3]))
    for seed in range(3):
        shuffled = log[np.random.default_rng(seed).permutation(len(rows))]
        found = sort_impressions(shuffled, LOGS)
        assert found.drop(HASH).rows() == expected
        assert found[HASH].to_list() == [int(hashes[row[1]]) for row in expected]


def test_the_order_in_which_columns_are_declared_does_not_matter() -> None:
    log = pl.DataFrame({"id": [1, 1], "user": [7, 7], "time_ms": [5, 5], "clicked": [0, 1], "at": [2, 1]})
    one, other = (sort_impressions(log.select(columns), LOGS) for columns in (log.columns, log.columns[::-1]))
    assert one["clicked"].to_list() == other["clicked"].to_list() == [1, 0]
