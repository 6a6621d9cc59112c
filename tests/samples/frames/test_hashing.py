"""The hash of an id is FNV-1a for ever: published vectors, whatever the id's type."""

import numpy as np
import polars as pl
import pytest

from pipeline.samples.frames.hashing import fnv1a, hash_index

# http://www.isthe.com/chongo/src/fnv/test_fnv.c, 64-bit FNV-1a.
PUBLISHED = {
    "": 0xCBF29CE484222325,
    "a": 0xAF63DC4C8601EC8C,
    "b": 0xAF63DF4C8601F1A5,
    "foo": 0xDCB27518FED9D577,
    "foobar": 0x85944171F73967E8,
    "chongo was here!\n": 0x46810940EFF5F915,
}


def plain(text: str) -> int:
    """FNV-1a as its authors write it, a byte at a time."""
    found = 14695981039346656037
    for byte in text.encode():
        found = (found ^ byte) * 1099511628211 % 2**64
    return found


def test_published_vectors() -> None:
    assert fnv1a(pl.Series(list(PUBLISHED))).tolist() == list(PUBLISHED.values())


def test_any_text_agrees_with_the_plain_algorithm() -> None:
    texts = ["视频", "café", "\U0001f600", " a ", "x" * 1000, "", "0", "-17"]
    assert fnv1a(pl.Series(texts)).tolist() == [plain(text) for text in texts]


def test_a_number_and_its_text_are_the_same_id() -> None:
    numbers = pl.Series([0, 7, -1, 2**63 - 1, -(2**63)], dtype=pl.Int64)
    assert fnv1a(numbers).tolist() == fnv1a(numbers.cast(pl.String)).tolist()
    assert fnv1a(pl.Series([7], dtype=pl.Int8)).tolist() == [plain("7")]


def test_a_part_of_a_column_hashes_like_the_whole() -> None:
    texts = pl.Series([f"id {i}" for i in range(100)])
    assert fnv1a(texts[10:20]).tolist() == fnv1a(texts)[10:20].tolist()
    chunked = pl.concat([texts[:3], texts[3:]], rechunk=False)
    assert fnv1a(chunked).tolist() == fnv1a(texts).tolist()


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_no_rows(dtype: type[pl.DataType]) -> None:
    assert fnv1a(pl.Series([], dtype=dtype)).shape == (0,)
    assert hash_index(pl.Series([], dtype=dtype), 10).to_list() == []


def test_a_missing_id_has_row_0_and_no_other_has() -> None:
    index = hash_index(pl.Series([None, "", "a", None]), 5)
    assert index.dtype == pl.Int32
    assert [i == 0 for i in index] == [True, False, False, True]
    assert hash_index(pl.Series([None, None], dtype=pl.String), 5).to_list() == [0, 0]


def test_the_row_is_the_folded_hash_within_the_table() -> None:
    for rows in (2, 3, 1000):
        expected = [1 + ((h := plain(str(i))) ^ h >> 32) % (rows - 1) for i in range(200)]
        assert hash_index(pl.Series(range(200)), rows).to_list() == expected
        assert set(expected) <= set(range(1, rows))


def test_ids_in_sequence_spread_evenly() -> None:
    """Chi-square of 100,000 ids over 999 rows: 998 expected, with a standard deviation of 45."""
    counts = np.bincount(hash_index(pl.Series(range(100_000)), 1000).to_numpy(), minlength=1000)[1:]
    assert abs(((counts - counts.mean()) ** 2).sum() / counts.mean() - 998) < 5 * 45
