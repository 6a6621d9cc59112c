"""Raw tables: the same rows from every format, and every row that is not kept is counted with its reason."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.errors import StrataError
from pipeline.raw.reading import CHUNK_ROWS, REJECTED, BadFile, RawChunk, find_files, read_chunks
from pipeline.spec.logs import RawTable
from pipeline.sql.types import schema
from pipeline.storage import Folder

SHOWN = RawTable(
    files="shown",
    columns={"id": "int64", "page": "string", "score": "float64", "ad": "bool"},
    checks=("score >= 0",),
)
ROWS: list[tuple[int, str | None, float | None, bool | None]] = [
    (9007199254740993, "feed", 0.5, True),  # an id that a float cannot hold
    (2, "café, “quoted”", 1e-3, False),
    (3, None, None, None),
]
SUFFIXES = [".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz"]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame(rows, infer_schema_length=None)
    if path.suffix == ".parquet":
        frame.write_parquet(path)
        return
    text = frame.write_csv() if ".csv" in path.name else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def read(raw: Path, table: RawTable = SHOWN) -> RawChunk:
    """All rows of a table, file after file."""
    files = find_files("shown", table, Folder.at(raw))
    chunks = [chunk for file in files for chunk in read_chunks("shown", table, file, required={"id"})]
    nothing = RawChunk(pl.DataFrame(schema=schema(table)), pl.DataFrame(schema=REJECTED))
    return RawChunk(pl.concat(c.rows for c in [nothing, *chunks]), pl.concat(c.rejected for c in [nothing, *chunks]))


def text_file(raw: Path, content: str, name: str = "a.csv") -> Path:
    (raw / "shown").mkdir(exist_ok=True)
    (raw / "shown" / name).write_text(content)
    return raw / "shown" / name


def reasons(found: RawChunk) -> list[tuple[str, str]]:
    return found.rejected.select("reason", "record").rows()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "shown" / f"a{suffix}", [dict(zip(SHOWN.columns, row, strict=True)) for row in ROWS])
    found = read(tmp_path)
    assert found.rows.rows() == ROWS
    assert found.rows.schema == {"id": pl.Int64, "page": pl.String, "score": pl.Float64, "ad": pl.Boolean}
    assert found.rejected.is_empty()


def test_formats_may_be_mixed_and_files_count_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, row in zip(("b.parquet", "c/d.jsonl.gz", "a.csv"), ROWS, strict=True):
        write(tmp_path / "shown" / name, [dict(zip(SHOWN.columns, row, strict=True))])
    text_file(tmp_path, "no log", "readme.txt")
    assert read(tmp_path).rows["id"].to_list() == [ROWS[2][0], ROWS[0][0], ROWS[1][0]]


@pytest.mark.parametrize(
    ("files", "expected"), [("shown", [1, 2, 3]), ("shown/a.csv", [1]), ("shown/day=*/*.csv", [2, 3])]
)
def test_files_are_a_folder_a_file_or_a_glob(tmp_path: Path, files: str, expected: list[int]) -> None:
    for i, name in enumerate(("a.csv", "day=1/x.csv", "day=2/x.csv"), start=1):
        write(tmp_path / "shown" / name, [{"id": i, "page": "p", "score": 1.0, "ad": True}])
    assert read(tmp_path, SHOWN.model_copy(update={"files": files})).rows["id"].to_list() == expected


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_with_the_letters_of_a_glob_is_a_name(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / "logs[1]" / "shown" / f"*{suffix}", [dict(zip(SHOWN.columns, ROWS[0], strict=True))])
    assert read(tmp_path / "logs[1]").rows.rows() == ROWS[:1]


def test_columns_that_the_spec_does_not_declare_are_left_out(tmp_path: Path) -> None:
    text_file(tmp_path, "more,ad,score,page,id\nx,1,2,p,3\n")
    assert read(tmp_path).rows.to_dicts() == [{"id": 3, "page": "p", "score": 2.0, "ad": True}]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_may_have_columns_of_any_name(tmp_path: Path, suffix: str) -> None:
    """Such as those under which rejected rows are filed."""
    table = RawTable(files="shown", columns={"id": "int64", "reason": "string", "line": "string", "a.b c": "string"})
    good = {"id": 1, "reason": "spam", "line": "first", "a.b c": "x"}
    write(tmp_path / "shown" / f"a{suffix}", [good, {**good, "id": None}])
    found = read(tmp_path, table)
    assert found.rows.to_dicts() == [good]
    assert [(reason, json.loads(record)) for reason, record in reasons(found)] == [
        ("id is missing", {**good, "id": None})
    ]


def test_rejected_rows_have_a_reason_and_their_record(tmp_path: Path) -> None:
    path = text_file(
        tmp_path,
        "id,page,score,ad\n1,a,1,yes\n2,b,many,true\nx,c,1,true\n,d,1,true\n5,e,-1,true\n6,f,,\n7\n,,,\n8.5,g,1,true\n",
    )
    found = read(tmp_path)
    assert found.rows.rows() == [(6, "f", None, None), (7, None, None, None)]
    assert reasons(found) == [
        ("ad is no bool", '{"id":"1","page":"a","score":"1","ad":"yes"}'),
        ("score is no float64", '{"id":"2","page":"b","score":"many","ad":"true"}'),
        ("id is no int64", '{"id":"x","page":"c","score":"1","ad":"true"}'),
        ("id is missing", '{"id":null,"page":"d","score":"1","ad":"true"}'),
        ("fails the check score >= 0", '{"id":"5","page":"e","score":"-1","ad":"true"}'),
        ("holds none of the columns", '{"id":null,"page":null,"score":null,"ad":null}'),
        ("id is no int64", '{"id":"8.5","page":"g","score":"1","ad":"true"}'),
    ]
    assert set(found.rejected["file"]) == {f"shown/{path.name}"}
    assert set(found.rejected["table"]) == {"shown"}


def test_a_json_line_that_is_cut_off_or_no_object_is_rejected_as_it_is(tmp_path: Path) -> None:
    good = '{"id": 1, "page": "a", "score": 1, "ad": true}'
    bad = ['{"id": 2, "page": "a", "sco', "7", "[1]", "null", '{"id": "two", "ad": false}', '{"page": "a"}']
    text_file(tmp_path, "\n".join([good, "", *bad]), "a.jsonl")
    found = read(tmp_path)
    assert found.rows.rows() == [(1, "a", 1.0, True)]
    nothing = "holds none of the columns"
    assert reasons(found) == list(zip([nothing] * 4 + ["id is no int64", "id is missing"], bad, strict=True))


def test_parquet_values_that_only_resemble_the_type_are_rejected(tmp_path: Path) -> None:
    """A missing integer that pandas wrote as NaN is missing, 2.5 is no integer, 5 no bool, 300 no int8."""
    table = RawTable(files="shown", columns={"id": "int64", "age": "int8", "ad": "bool"})
    (tmp_path / "shown").mkdir()
    frame = pl.DataFrame({"id": [1.0, 2.5, float("nan"), 4.0, 5.0], "age": [7, 7, 7, 300, None], "ad": [1, 1, 1, 1, 5]})
    frame.write_parquet(tmp_path / "shown" / "a.parquet")
    found = read(tmp_path, table)
    assert found.rows.rows() == [(1, 7, True)]
    assert [reason for reason, _ in reasons(found)] == [
        "id is no int64",
        "id is missing",
        "age is no int8",
        "ad is no bool",
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_long_file_comes_in_chunks_in_its_order(tmp_path: Path, suffix: str) -> None:
    """Every seventh row is rejected; none is lost or moved where one chunk ends and the next begins."""
    table = RawTable(files="shown", columns={"id": "int64"}, checks=("id % 7 > 0",))
    total = CHUNK_ROWS + CHUNK_ROWS // 5
    ids = pl.DataFrame({"id": range(total)})
    (tmp_path / "shown").mkdir()
    path = tmp_path / "shown" / f"a{suffix}"
    if suffix == ".parquet":
        ids.write_parquet(path)
    else:
        text = ids.write_csv() if ".csv" in suffix else ids.write_ndjson()
        path.write_bytes(gzip.compress(text.encode(), 1) if suffix.endswith(".gz") else text.encode())
    (file,) = find_files("shown", table, Folder.at(tmp_path))
    chunks = list(read_chunks("shown", table, file, required={"id"}))
    assert len(chunks) > 1
    assert max(chunk.rows.height + chunk.rejected.height for chunk in chunks) <= CHUNK_ROWS
    every = ids["id"]
    assert pl.concat(chunk.rows["id"] for chunk in chunks).equals(every.filter(every % 7 > 0))
    records = pl.concat(chunk.rejected["record"] for chunk in chunks)
    assert records.str.extract(r"(\d+)").cast(pl.Int64).equals(every.filter(every % 7 == 0))


def change(path: Path) -> None:
    path.write_text("id,page,score,ad\n1,a,1,true\n2,b,1,true\n")


@pytest.mark.parametrize(("spoil", "message"), [(change, "changed"), (Path.unlink, "disappeared")])
@pytest.mark.parametrize("begun", [False, True])
def test_a_file_that_changes_after_it_was_listed_is_refused(
    tmp_path: Path, spoil: Callable[[Path], None], message: str, begun: bool
) -> None:
    """Before its first row is read as well as before its last."""
    path = text_file(tmp_path, "id,page,score,ad\n1,a,1,true\n")
    (file,) = find_files("shown", SHOWN, Folder.at(tmp_path))
    chunks = read_chunks("shown", SHOWN, file, required={"id"})
    if begun:
        next(chunks)
    spoil(path)
    with pytest.raises(BadFile) as error:
        list(chunks)
    assert str(error.value) == (
        f"{path}: {message} while it was used; write logs elsewhere and move whole files here; "
        "then run the same command again"
    )


def test_a_file_without_rows_is_no_mistake(tmp_path: Path) -> None:
    text_file(tmp_path, "id,page,score,ad\n", "a.csv")
    text_file(tmp_path, "", "b.jsonl")
    pl.DataFrame(schema={"id": pl.Int64, "page": pl.String, "score": pl.Float64, "ad": pl.Boolean}).write_parquet(
        tmp_path / "shown" / "c.parquet"
    )
    found = read(tmp_path)
    assert (found.rows.height, found.rejected.height) == (0, 0)


def test_a_column_of_nulls_is_there(tmp_path: Path) -> None:
    text_file(tmp_path, '{"id": 1, "page": null, "score": 1, "ad": null}\n{"id": 2, "score": 1}\n', "a.jsonl")
    assert read(tmp_path).rows.rows() == [(1, None, 1.0, None), (2, None, 1.0, None)]


def truncated(suffix: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        write(folder / f"a{suffix}", [{"id": i, "page": f"{i * 7919}", "score": 1.0, "ad": True} for i in range(3000)])
        content = (folder / f"a{suffix}").read_bytes()
        (folder / f"a{suffix}").write_bytes(content[: len(content) // 2])

    return spoil


FOUR = {"id": 1, "page": "a", "score": 1.0, "ad": True}
THREE = {"id": 1, "page": "a", "score": 1.0}
MISSING = "the column `ad` is missing; the file has id, page, score; correct the file, or `columns` in the spec"
BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "truncated parquet": (truncated(".parquet"), "a.parquet", "cannot be read ("),
    "truncated csv.gz": (truncated(".csv.gz"), "a.csv.gz", "cannot be read ("),
    "truncated jsonl.gz": (truncated(".jsonl.gz"), "a.jsonl.gz", "cannot be read ("),
    "empty parquet": (lambda folder: (folder / "a.parquet").touch(), "a.parquet", "cannot be read ("),
    "empty csv": (lambda folder: (folder / "a.csv").touch(), "a.csv", "cannot be read (empty CSV)"),
    "text called parquet": (lambda folder: (folder / "a.parquet").write_text("id\n" * 9), "a.parquet", "cannot"),
    "latin-1 csv": (lambda folder: (folder / "a.csv").write_bytes(b"id,page,score,ad\n1,\xe9,1,1"), "a.csv", "cannot"),
    "latin-1 jsonl": (lambda folder: (folder / "a.jsonl").write_bytes(b'{"id":1,"page":"\xe9"}'), "a.jsonl", "cannot"),
    "column missing in csv": (lambda folder: write(folder / "a.csv", [THREE]), "a.csv", MISSING),
    "column missing in csv.gz": (lambda folder: write(folder / "a.csv.gz", [THREE]), "a.csv.gz", MISSING),
    "column missing in parquet": (lambda folder: write(folder / "a.parquet", [THREE]), "a.parquet", MISSING),
    "column missing in jsonl": (lambda folder: write(folder / "a.jsonl", [THREE]), "a.jsonl", MISSING),
    "timestamps for ms": (
        lambda folder: pl.DataFrame([FOUR]).cast({"id": pl.Datetime("us")}).write_parquet(folder / "a.parquet"),
        "a.parquet",
        "the column `id` is Datetime(time_unit='us', time_zone=None); write it as int64",
    ),
    "lists for text": (
        lambda folder: write(folder / "a.parquet", [{**FOUR, "page": ["a"]}]),
        "a.parquet",
        "the column `page` is List(String); write it as string",
    ),
    "no file": (
        lambda folder: (folder / "a.txt").touch(),
        ".",
        "no files of the table `shown` (.parquet, .csv, "
        ".csv.gz, .jsonl, .jsonl.gz); put them there, or correct `files` of `shown` in the spec",
    ),
}


@pytest.mark.parametrize(("spoil", "file", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_one_line_that_names_the_file(
    tmp_path: Path, spoil: Callable[[Path], Any], file: str, message: str
) -> None:
    (tmp_path / "shown").mkdir()
    spoil(tmp_path / "shown")
    with pytest.raises(StrataError) as error:
        read(tmp_path)
    # A damaged file can be put in quarantine, a missing one cannot.
    assert isinstance(error.value, BadFile) == (file != ".")
    assert str(error.value).startswith(f"{tmp_path / 'shown' / file}: {message}")
    assert "\n" not in str(error.value)


def test_the_wrong_place_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StrataError, match="no such folder; pass --raw the folder that holds the raw logs"):
        read(tmp_path / "none")
    with pytest.raises(StrataError, match="`files` of the table `shown` is absolute; give it relative to --raw"):
        read(tmp_path, SHOWN.model_copy(update={"files": "/logs"}))
