"""A hash of ids that never changes: 64-bit FNV-1a of the id's text in UTF-8.

The algorithm is fixed (Fowler, Noll, Vo; offset basis 14695981039346656037, prime 1099511628211). An id has the same
hash whether a log writes it as a number or as text. Published test vectors: "" -> cbf29ce484222325,
"a" -> af63dc4c8601ec8c, "foobar" -> 85944171f73967e8.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa

OFFSET_BASIS = np.uint64(14695981039346656037)
PRIME = np.uint64(1099511628211)


def fnv1a(values: pl.Series) -> np.ndarray:
    """The hash of each value's text [N], uint64; that of "" for a null.

    One pass over the column per byte of the longest value, each over the values that are that long.
    """
    text = values.cast(pl.String).fill_null("").to_arrow().cast(pa.large_string())
    _, offsets_buffer, bytes_buffer = text.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(bytes_buffer or b"", np.uint8)
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashes = np.full(len(text), OFFSET_BASIS)
    rows = np.flatnonzero(lengths)
    position = 0
    while len(rows):
        hashes[rows] = (hashes[rows] ^ data[starts[rows] + position]) * PRIME
        position += 1
        rows = rows[lengths[rows] > position]
    return hashes


def mixed_hash(values: pl.Series) -> np.ndarray:
    """FNV-1a mixed by SplitMix64, [N] uint64: FNV-1a alone hardly changes its upper bits between short texts."""
    return _mixed(fnv1a(values))


def user_hash(users: pl.Series) -> np.ndarray:
    """The hash by which rows are dealt and sorted, [N] uint64: of whole numbers SplitMix64, of others `mixed_hash`."""
    if users.dtype.is_integer():
        return _mixed(users.cast(pl.Int64).to_numpy().view(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return _of_each_different(users, mixed_hash)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood, 2014); the caller has added its increment."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def hash_index(values: pl.Series, rows: int) -> pl.Series:
    """The row of each id in a table of `rows` rows: 1 to rows - 1, or 0 for a missing id.

    The upper half of the hash is folded into the lower half, which is weak in FNV-1a.
    """

    def index(different: pl.Series) -> np.ndarray:
        hashes = fnv1a(different)
        folded = 1 + (hashes ^ (hashes >> np.uint64(32))) % np.uint64(rows - 1)
        return np.where(different.is_null().to_numpy(), 0, folded).astype(np.int32)

    return pl.Series(_of_each_different(values, index))


def _of_each_different(values: pl.Series, function: Callable[[pl.Series], np.ndarray]) -> np.ndarray:
    """The function's result for each value. It is called on the different values only, because ids repeat."""
    different = values.alias("value").unique()
    results = pl.DataFrame({"value": different, "result": function(different)})
    asked = values.alias("value").to_frame()
    found: np.ndarray = asked.join(results, on="value", how="left", maintain_order="left", nulls_equal=True)[
        "result"
    ].to_numpy()
    return found
