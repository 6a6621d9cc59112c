"""Every key of a profile is kept once: copies are dropped and counted, other rows of a known key are rejected."""

import json
from pathlib import Path

import polars as pl
import pytest

from pipeline.raw.reading import REJECTED, find_files
from pipeline.samples.stages.deal import DealTask, deal
from pipeline.samples.stages.pieces import pieces_by_cell
from pipeline.samples.stages.profiles import ProfileTask, prepare_profile, reject_repeats
from pipeline.spec.logs import Profile
from pipeline.spec.spec import Spec
from pipeline.storage import Folder


def with_profile(profile: Profile) -> Spec:
    """A spec with this profile alone."""
    impression = {
        "files": "shown",
        "columns": {"id": "int64", "user": "int64", "at": "int64", "liked": "bool"},
        "id": ["id"],
        "user": "user",
        "video": "id",
        "time": "at",
        "outcomes": ["liked"],
    }
    return Spec.model_validate(
        {
            "name": "clips",
            "logs": {"impression": impression, "profiles": {"clip": profile.model_dump()}},
            "tables": {"id": {"encode": "vocab", "dim": 4}},
            "features": {"id": {"kind": "id", "table": "id"}},
            "objectives": {"like": {"kind": "binary", "label": "liked"}},
            "scenes": {"all": {"where": "id > 0", "weights": {"like": 1.0}}},
        }
    )


def prepared(
    folder: Path, profile: Profile, *contents: str
) -> tuple[list[tuple[object, ...]], int, dict[str, int], list[str]]:
    """Rows kept, copies dropped, rejected rows by reason, and their records; each of `contents` is one CSV file."""
    (folder / "raw" / "clip").mkdir(parents=True)
    for number, content in enumerate(contents):
        (folder / "raw" / "clip" / f"{number}.csv").write_text(content)
    store = Folder.at(folder / "store")
    files = find_files("clip", profile, Folder.at(folder / "raw"))
    spec = with_profile(profile)
    dealt = [deal(DealTask(store, spec, "clip", file, partitions=1, quarantine=False)) for file in files]
    task = ProfileTask(store, spec, "clip", pieces_by_cell(reversed(dealt))["clip"][0, None])
    done = prepare_profile(task)
    assert prepare_profile(task).made is False
    receipt = done.receipt
    rejected = task.results.read("rejected") if receipt.rejected else pl.DataFrame(schema=REJECTED)
    kept = task.results.read("rows").rows()
    return kept, receipt.duplicates, receipt.rejected, rejected["record"].to_list()


COLUMNS = {"id": "int64", "page": "string", "score": "float64"}
CLIP = Profile.model_validate({"files": "clip", "key": "id", "columns": COLUMNS})


def test_copies_are_dropped_across_files_and_the_first_of_a_repeated_key_is_kept(tmp_path: Path) -> None:
    """Files count in the order of their names."""
    rows, duplicates, rejected, records = prepared(
        tmp_path, CLIP, "id,page,score\n1,a,1\n1,a,1\n2,b,\n", "id,page,score\n2,b,\n1,late,1\n1,late,1\n3,c,1\n"
    )
    assert rows == [(1, "a", 1.0), (2, "b", None), (3, "c", 1.0)]
    assert duplicates == 3
    assert rejected == {"repeats the id of another row": 1}
    assert [json.loads(record) for record in records] == [{"id": 1, "page": "late", "score": 1.0}]


def test_with_validity_a_key_may_have_a_row_per_beginning(tmp_path: Path) -> None:
    dated = CLIP.model_copy(update={"valid_from": "since", "columns": {**COLUMNS, "since": "int64"}})
    rows, duplicates, rejected, _ = prepared(
        tmp_path, dated, "id,page,score,since\n1,a,1,10\n1,b,1,20\n1,b,1,20\n1,c,1,10\n"
    )
    assert rows == [(1, "a", 1.0, 10), (1, "b", 1.0, 20)]
    assert duplicates == 1
    assert rejected == {"repeats the id, since of another row": 1}


@pytest.mark.parametrize("unique", [["id"], ["id", "user"]])
def test_the_first_row_of_each_id_is_kept(unique: list[str]) -> None:
    rows = pl.DataFrame({"id": [1, 2, 1, 1], "user": [7, 7, 7, 8], "x": ["a", "b", "c", "d"]})
    kept, repeats = reject_repeats(rows, unique, "impression")
    expected = ["a", "b"] if unique == ["id"] else ["a", "b", "d"]
    assert kept["x"].to_list() == expected
    assert repeats.schema == REJECTED
    assert [json.loads(record)["x"] for record in repeats["record"]] == [x for x in "cd" if x not in expected]
    assert set(repeats["reason"]) == {f"repeats the {', '.join(unique)} of another row"}
    assert set(repeats["table"]) == {"impression"}
