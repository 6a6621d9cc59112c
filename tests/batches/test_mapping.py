"""Rows of one store in the encoding of another, held against dictionaries in plain Python."""

import hashlib
import math
from bisect import bisect_right
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.batches.mapping import Encoding, SampleMapping, cut_intervals, earlier_rows, rows_by_interval
from pipeline.errors import StrataError
from pipeline.manifest import Learned, Manifest, Normaliser, Vocabulary
from pipeline.spec.spec import Spec

CONTENT: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": {
            "files": "shown",
            "columns": {
                "id": "int64",
                "user": "int64",
                "video": "int64",
                "tags": "string",
                "at": "int64",
                "s": "float64",
            },
            "id": ["id"],
            "user": "user",
            "video": "video",
            "time": "at",
            "outcomes": ["s"],
        },
    },
    "tables": {
        "user": {"encode": "hash", "rows": 9, "dim": 4},
        "video": {"encode": "vocab", "dim": 4},
        "tag": {"encode": "vocab", "dim": 4},
        "length": {"encode": "quantiles", "buckets": 8, "dim": 4},
    },
    "features": {
        "user": {"kind": "id", "table": "user"},
        "video": {"kind": "id", "table": "video"},
        "tags": {"kind": "id_list", "table": "tag"},
        "length": {"kind": "id", "table": "length", "source": "video"},
        "last": {"kind": "history", "table": "video", "of": "video", "last": 3},
        "number": {"kind": "dense", "source": "video"},
        "steady": {"kind": "dense", "source": "user"},
    },
    "objectives": {"watch": {"kind": "regression", "label": "s"}},
    "scenes": {"all": {"where": "video > 0", "weights": {"watch": 1.0}}},
}
SPEC = Spec.model_validate(CONTENT)
STEADY = Normaliser(mean=2.0, std=3.0)
# The values of each table from row 1 on, and the boundaries: in the store, and in the run before it.
VIDEOS, VIDEOS_BEFORE = [50, 10, 30, 20], [20, 40, 10]
TAGS, TAGS_BEFORE = ["b", "a", "new"], ["a", "b", "gone"]
LENGTHS, LENGTHS_BEFORE = [10.0, 20.0, 30.0], [20.0, 24.0]
NOW, BEFORE = Normaliser(mean=5.0, std=2.0), Normaliser(mean=4.0, std=0.5)


def encoding(
    folder: Path, videos: list[int], tags: list[str], lengths: list[float], number: Normaliser, **rows: int
) -> Encoding:
    folder.mkdir()
    vocabularies = {}
    for table, values in (("video", videos), ("tag", tags)):
        pq.write_table(pa.table({"value": values, "index": range(1, len(values) + 1)}), folder / table)
        digest = hashlib.sha256((folder / table).read_bytes()).hexdigest()
        vocabularies[table] = Vocabulary(path=table, sha256=digest)
    learned = Learned(
        table_rows={"user": 9, "video": len(videos) + 1, "tag": len(tags) + 1, "length": 9, **rows},
        vocabularies=vocabularies,
        boundaries={"length": lengths},
        normalisers={"number": number, "steady": STEADY},
        baselines={},
    )
    return Encoding(folder, Manifest.model_construct(spec=SPEC, learned=learned))


@pytest.fixture
def store(tmp_path: Path) -> Encoding:
    return encoding(tmp_path / "store", VIDEOS, TAGS, LENGTHS, NOW)


@pytest.fixture
def run(tmp_path: Path) -> Encoding:
    return encoding(tmp_path / "run", VIDEOS_BEFORE, TAGS_BEFORE, LENGTHS_BEFORE, BEFORE)


def rows(values: dict[str, list[Any]]) -> pa.Table:
    """The columns of features; of lists the items are int32, as in a store."""
    types = {"tags": pa.large_list(pa.int32()), "last": pa.list_(pa.int32())}
    types |= {"number": pa.float32(), "steady": pa.float32()}
    return pa.table({f"feature_{name}": pa.array(v, types.get(name, pa.int32())) for name, v in values.items()})


def test_rows_are_what_the_run_would_have_made_of_their_values(store: Encoding, run: Encoding):
    """Values are drawn, encoded as the store does, and mapped; the run's dictionaries say what they should be."""
    drawn = np.random.default_rng(0)
    count = 500
    videos = drawn.choice([*VIDEOS, 99], count).tolist()
    tags = [drawn.choice([*TAGS, "?"], drawn.integers(0, 4)).tolist() for _ in range(count)]
    lengths = drawn.integers(0, 40, count).tolist()
    last = [drawn.choice([*VIDEOS, 99], drawn.integers(0, 4)).tolist() for _ in range(count)]
    users = drawn.integers(0, 9, count).tolist()
    numbers = [None if at % 7 == 0 else float(drawn.normal(5, 2)) for at in range(count)]

    def row(value: Any, values: list[Any]) -> int:
        return values.index(value) + 1 if value in values else 0

    def interval(number: float, boundaries: list[float]) -> int:
        return 1 + bisect_right(boundaries, number)

    def standardised(number: float | None, by: Normaliser) -> float:
        return 0.0 if number is None else (number - by.mean) / by.std

    stored = rows(
        {
            "user": users,
            "video": [row(video, VIDEOS) for video in videos],
            "tags": [[row(tag, TAGS) for tag in of_row] for of_row in tags],
            "length": [interval(length, LENGTHS) for length in lengths],
            "last": [[row(video, VIDEOS) for video in of_row] for of_row in last],
            "number": [standardised(number, NOW) for number in numbers],
            "steady": [standardised(number, STEADY) for number in numbers],
        }
    )
    mapping = SampleMapping(store, run)
    mapped = pa.concat_tables(mapping.apply(stored.slice(start, 70)) for start in range(0, count, 70))
    assert mapped.schema == stored.schema
    found = {name.removeprefix("feature_"): mapped[name].to_pylist() for name in mapped.column_names}
    assert (found["user"], found["steady"]) == (users, stored["feature_steady"].to_pylist())
    assert found["video"] == [row(video, VIDEOS_BEFORE) if video in VIDEOS else 0 for video in videos]
    assert found["last"] == [[row(v, VIDEOS_BEFORE) if v in VIDEOS else 0 for v in of_row] for of_row in last]
    assert found["tags"] == [[row(tag, TAGS_BEFORE) if tag in TAGS else 0 for tag in of_row] for of_row in tags]
    expected = [standardised(number, BEFORE) for number in numbers]
    assert found["number"] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert found["number"][::7] == [0.0] * len(found["number"][::7])

    # 24 cuts the interval from 20 to 30, whose middle, 25, lies above; nothing cuts the others.
    def mapped_interval(length: float) -> int:
        return 3 if 20 <= length < 30 else interval(length, LENGTHS_BEFORE)

    assert found["length"] == list(map(mapped_interval, lengths))
    all_videos = [*videos, *(video for of_row in last for video in of_row)]
    unknown = [video for video in all_videos if video in VIDEOS and video not in VIDEOS_BEFORE]
    unknown += [tag for of_row in tags for tag in of_row if tag in TAGS and tag not in TAGS_BEFORE]
    cut = [20 <= length < 30 for length in lengths]
    counts = mapping.counts
    assert (counts.values, counts.unknown) == (len(all_videos) + sum(map(len, tags)), len(unknown))
    assert (counts.rows, counts.cut_rows) == (count, sum(cut))
    assert 0 < sum(cut) < count


def test_the_same_encoding_is_not_touched(store: Encoding, tmp_path: Path):
    again = encoding(tmp_path / "again", VIDEOS, TAGS, LENGTHS, NOW)
    assert [earlier_rows(table, store, again) for table in SPEC.tables] == [None] * 4
    stored = rows(
        {"user": [1], "video": [2], "tags": [[1, 2]], "length": [1], "last": [[]], "number": [0.3], "steady": [0.1]}
    )
    mapping = SampleMapping(store, again)
    assert mapping.apply(stored) == stored
    assert (mapping.counts.unknown, mapping.counts.cut_rows) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_goes_where_its_numbers_were(seed: int):
    """Without a cut every number of the interval, with one its middle; some boundaries are the same in both."""
    drawn = np.random.default_rng(seed)
    same = drawn.integers(-20, 20, drawn.integers(0, 4)).astype(float)
    now, before = (np.unique([*same, *drawn.normal(0, 10, drawn.integers(0, 6))]) for _ in range(2))
    mapped, cut = rows_by_interval(now, before), cut_intervals(now, before)
    assert len(mapped) == len(cut) == len(now) + 2
    edges = [-math.inf, *now.tolist(), math.inf]
    for row in range(1, len(now) + 2):
        low, high = edges[row - 1], edges[row]
        inside = [number for number in before.tolist() if low < number < high]
        assert cut[row] == bool(inside)
        if not inside:
            some = max(low, -1e9), min(math.nextafter(high, -math.inf), 1e9)
            assert {1 + bisect_right(before.tolist(), number) for number in some} == {mapped[row]}
        elif 1 < row < len(now) + 1:
            assert mapped[row] == 1 + bisect_right(before.tolist(), (low + high) / 2)
        else:
            assert mapped[row] == (1 if row == 1 else len(before) + 1)
    assert (mapped[0], cut[0]) == (0, False)


def test_a_row_that_stands_for_nothing_is_new(store: Encoding, run: Encoding):
    """Of 9 rows for lengths, the store needs 5; the vocabularies have values that the run did not know."""
    found = {table: earlier_rows(table, store, run) for table in SPEC.tables}
    assert found["user"] is None
    assert [list(found[table]) for table in ("video", "tag", "length")] == [  # type: ignore[arg-type]
        [0, -1, 3, -1, 1],
        [0, 2, 1, -1],
        [0, 1, 1, 3, 3, -1, -1, -1, -1],
    ]


def test_what_cannot_be_mapped_is_named(store: Encoding, tmp_path: Path):
    larger = encoding(tmp_path / "larger", VIDEOS, TAGS, LENGTHS, NOW, user=12)
    with pytest.raises(StrataError, match="hash table `user` has 12 rows in it, but 9 now"):
        earlier_rows("user", store, larger)
    words = encoding(tmp_path / "words", ["x"], TAGS, LENGTHS, NOW)  # type: ignore[list-item]
    with pytest.raises(StrataError, match="table `video` had string values in it, and has int64 values now"):
        earlier_rows("video", store, words)
    (store.folder / "video").write_bytes(b"other")
    with pytest.raises(StrataError, match=f"{store.folder}/video: is not what was written"):
        SampleMapping(store, words)
    content = CONTENT | {"features": {name: f for name, f in CONTENT["features"].items() if name != "tags"}}
    content |= {"tables": {name: t for name, t in CONTENT["tables"].items() if name != "tag"}}
    content["objectives"] = {"watch": {"kind": "regression", "label": "s / 2"}}
    other = Encoding(tmp_path / "other", Manifest.model_construct(spec=Spec.model_validate(content)))
    with pytest.raises(StrataError) as refused:
        SampleMapping(other, larger)
    assert str(refused.value) == (
        f"{larger.folder}: cannot be used on {other.folder}, whose spec lacks features.tags, tables.tag and has "
        "another objectives.watch.label; build samples whose spec agrees with the run's there, or train a new model"
    )
