"""A log whose columns have odd names gives the very samples of the same log with plain names, whatever its format."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML

from pipeline.manifest import load_manifest

ROOT = Path(__file__).parents[2]
# Names that need quotes in SQL, and names of columns that Strata adds while it builds.
ODD = {
    "session": "it's",
    "slot": "Item Position",
    "user": "User ID",
    "video": "a.b",
    "at": "shown/at (ms), UTC",
    "price": "CTR % <b>",
    "tags": "tags[0]['x']",
    "ms": "watch:ms$",
    "speed": "speed^",
    "place": "用户 café",
    "begin": "1st {} *",
    "low": "low `#@` --",
    "tapped": "value",
    "since": "valid from",
    "until": "valid to",
    "tier": "row of the impression",
    "age": "share kept",
    "channel": "key",
    "length": "start_seen",
}


def odd_sql(expression: str) -> str:
    """The expression with odd names, in quotes."""
    names = re.compile(rf"'[^']*'|\b({'|'.join(ODD)})\b")
    return names.sub(lambda found: f'"{ODD[found[0]]}"' if found[1] else found[0], expression)


def odd_table(table: dict[str, Any]) -> dict[str, Any]:
    table["columns"] = {ODD[name]: type_ for name, type_ in table["columns"].items()}
    table["checks"] = [odd_sql(check) for check in table.get("checks", [])]
    for key in ("user", "video", "time", "key", "valid_from", "valid_to"):
        if key in table:
            table[key] = ODD[table[key]]
    return table


def odd_spec(text: str, format_: str) -> dict[str, Any]:
    """The spec with odd names, for files of one format."""
    spec: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    impression = odd_table(spec["logs"]["impression"])
    impression["id"] = [ODD[name] for name in impression["id"]]
    for event in spec["logs"]["events"].values():
        odd_table(event)["values"] = {ODD[name]: how for name, how in event.get("values", {}).items()}
    for profile in spec["logs"]["profiles"].values():
        odd_table(profile)
    for name, table in {**spec["logs"]["events"], **spec["logs"]["profiles"]}.items():
        table["files"] = f"{name}.{format_}"
    spec["columns"] = {name: odd_sql(sql) for name, sql in spec["columns"].items()}
    counters = spec["counters"]
    counters["by"] = {name: ODD.get(key, key) for name, key in counters["by"].items()}
    for name, feature in spec["features"].items():
        if feature["kind"] != "history":
            feature.setdefault("source", name)
    for part in (
        *(*counters["measures"].values(), *spec["features"].values(), *spec["objectives"].values()),
        *(*spec["scenes"].values(), *spec["downsample"], spec),
    ):
        for key in {"where", "mean", "source", "of", "label", "filter", "sample_weight"} & {*part}:
            part[key] = odd_sql(part[key])
    return spec


def write_odd_log(plain: Path, raw: Path, format_: str) -> None:
    """The log with odd names, in one format. In text, each file of impressions has a row whose price is no number."""
    (raw / "shown").mkdir(parents=True)
    for path in plain.rglob("*.*"):
        reader = {".parquet": pl.read_parquet, ".csv": pl.read_csv, ".jsonl": pl.read_ndjson}[path.suffix]
        table = reader(path).rename(ODD, strict=False)
        if format_ != "parquet" and path.parent.name == "shown":
            not_a_number = table.head(1).with_columns(pl.lit("much").alias(ODD["price"]))
            table = pl.concat([table.cast({ODD["price"]: pl.String}), not_a_number])
        target = (raw / path.relative_to(plain)).with_suffix(f".{format_}")
        if format_ == "parquet":
            table.write_parquet(target)
        elif format_ == "csv":
            table.write_csv(target)
        else:  # with escapes in the keys, as Python writes them
            target.write_text("".join(json.dumps(row) + "\n" for row in table.iter_rows(named=True)))


@pytest.mark.parametrize("format_", ["parquet", "csv", "jsonl"])
def test_odd_names_change_nothing_but_the_names(everything: Path, tmp_path: Path, format_: str) -> None:
    """The build command also writes the data report and audits the store."""
    spec, raw, store = tmp_path / "spec.yaml", tmp_path / "raw", tmp_path / "samples"
    spec.write_text(json.dumps(odd_spec((everything / "spec.yaml").read_text(), format_), default=str))
    write_odd_log(everything / "raw", raw, format_)
    program = [sys.executable, ROOT / "scripts" / "build_samples.py"]
    options = ["--spec", spec, "--raw", raw, "--out", store, "--audit", "20"]
    done = subprocess.run([*program, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reason = "CTR % &lt;b&gt; is no float64"
    assert (reason in (store / "data.html").read_text()) == (format_ != "parquet")
    assert read(store).equals(read(everything / "samples"))


def read(store: Path) -> pl.DataFrame:
    files = sorted(load_manifest(store).files, key=lambda file: file.path)
    return pl.concat(pl.read_parquet(store / f.path, hive_partitioning=False) for f in files).sort(
        "time_ms", "sample_id", "user_id"
    )
