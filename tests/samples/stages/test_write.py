"""Down-sampling keeps about the share that the spec asks for, and the weights make up for it."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipeline.samples.frames.labels import KEEP
from pipeline.samples.stages.write import downsample

ROWS = 20_000


def samples(keep: list[float]) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    weights = pl.Series(rng.uniform(0, 3, ROWS), dtype=pl.Float32)
    return pl.DataFrame({"sample_id": range(ROWS), KEEP: rng.choice(keep, ROWS)}).with_columns(sample_weight=weights)


@pytest.mark.parametrize("keep", [0.5, 0.1, 0.9])
def test_about_the_share_is_kept_and_stands_for_all(keep: float) -> None:
    """Within five standard deviations of a draw by chance."""
    before = samples([keep])
    after = downsample(before)
    spread = np.sqrt(keep * (1 - keep) * ROWS)
    assert abs(after.height - keep * ROWS) < 5 * spread
    assert 0 < after.height < ROWS
    by_id = before.join(after, on="sample_id", how="inner", maintain_order="right")
    assert after["sample_id"].to_list() == sorted(after["sample_id"].to_list())
    assert after["sample_weight"].dtype == pl.Float32
    np.testing.assert_allclose(after["sample_weight"], by_id["sample_weight"] / keep, rtol=1e-6)
    weights, kept = (frame["sample_weight"].cast(pl.Float64).to_numpy() for frame in (before, after))
    noise = np.sqrt((weights**2).sum() * (1 - keep) / keep)
    assert abs(kept.sum() - weights.sum()) < 5 * noise


def test_each_rate_thins_its_own_rows_and_a_rate_of_1_none() -> None:
    before = samples([1.0, 0.5, 0.05])
    after = downsample(before)
    untouched = pl.col(KEEP) == 1
    assert_frame_equal(after.filter(untouched), before.filter(untouched))
    for keep in (0.5, 0.05):
        share = after.filter(pl.col(KEEP) == keep).height / before.filter(pl.col(KEEP) == keep).height
        assert abs(share - keep) < 0.03
    assert_frame_equal(downsample(before.filter(untouched)), before.filter(untouched))


def test_the_draw_depends_on_the_sample_id_alone() -> None:
    """The same rows are kept again, in another order or beside other rows; and a lower rate keeps some of them."""
    before = samples([0.4])
    after = downsample(before)
    assert_frame_equal(downsample(before), after)
    assert_frame_equal(downsample(before.reverse()), after.reverse())
    assert_frame_equal(pl.concat([downsample(before[:7000]), downsample(before[7000:])]), after)
    fewer = downsample(before.with_columns(pl.lit(0.2).alias(KEEP)))
    assert fewer["sample_id"].is_in(after["sample_id"].implode()).all()
    as_text = before.with_columns(pl.col("sample_id").cast(pl.String))
    assert downsample(as_text)["sample_id"].cast(pl.Int64).equals(after["sample_id"])
