"""What belongs to samples and what to a run, and that a key which comes later changes neither."""

import copy
from typing import Any

import pytest

from pipeline.spec.part import Part
from pipeline.spec.parts import NO_STAGE, STAGES, changed_parts, digest_of_parts, samples_fingerprint, stages_after
from pipeline.spec.spec import Spec, Split

CONTENT: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": {
            "files": "shown",
            "columns": {"id": "int64", "user": "int64", "video": "int64", "at": "int64", "seconds": "float64"},
            "id": ["id"],
            "user": "user",
            "video": "video",
            "time": "at",
            "outcomes": ["seconds"],
        },
    },
    "tables": {"video": {"encode": "vocab", "dim": 4}, "user": {"encode": "hash", "rows": 9, "dim": 4}},
    "features": {"video": {"kind": "id", "table": "video"}, "user": {"kind": "id", "table": "user"}},
    "objectives": {
        # Named like a key of the spec, which must not confuse anyone.
        "where": {"kind": "binary", "label": "seconds > 3"},
        "watch": {"kind": "regression", "label": "seconds"},
    },
    "scenes": {"all": {"where": "video > 0", "weights": {"where": 1.0, "watch": 1.0}}},
}


def spec(**changes: Any) -> Spec:
    """`spec(tables__video__dim=8)` is the small spec with `tables.video.dim` set to 8."""
    content = copy.deepcopy(CONTENT)
    for path, value in changes.items():
        *names, last = path.split("__")
        place = content
        for name in names:
            place = place.setdefault(name, {})
        place[last] = value
    return Spec.model_validate(content)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "another"},
        {"tables__video__dim": 8},
        {"tables__video__pooling": "sum"},
        {"objectives__watch__loss": "huber"},
        {"objectives__watch__transform": "log1p"},
        {"objectives__watch__unit": "s"},
        {"scenes__all__weights__where": 0.5},
        {"logs__impression__outcomes": ["seconds", "seconds"]},
    ],
)
def test_what_belongs_to_a_run_leaves_the_samples_fingerprint_alone(change: dict[str, Any]) -> None:
    before, after = spec(), spec(**change)
    assert samples_fingerprint(after) == samples_fingerprint(before)
    assert after.fingerprint() != before.fingerprint()
    assert list(changed_parts(before, after)) == [NO_STAGE]


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"logs__impression__video": "user"}, "dealt"),
        ({"logs__timezone": "Asia/Tokyo"}, "dealt"),
        ({"logs__day": "local_day"}, "counted"),
        ({"columns": {"twice": "video * 2"}}, "counted"),
        ({"features__video__source": "video + 1"}, "drafts"),
        ({"objectives__where__label": "seconds > 4"}, "drafts"),
        ({"scenes__all__where": "video > 1"}, "drafts"),
        ({"filter": "video < 9"}, "drafts"),
        ({"downsample": [{"where": "video = 1", "keep": 0.5}]}, "drafts"),
        ({"tables__video__min_count": 2}, "learned"),
        ({"tables__user__rows": 8}, "encoded"),
        ({"objectives__watch__baseline_by": "video"}, "encoded"),
    ],
)
def test_what_samples_depend_on_changes_their_fingerprint(change: dict[str, Any], stage: str) -> None:
    before, after = spec(), spec(**change)
    assert samples_fingerprint(after) != samples_fingerprint(before)
    assert list(changed_parts(before, after)) == [stage]


def test_names_that_come_and_go_are_told_once() -> None:
    before = spec()
    new = spec(
        objectives__long={"kind": "binary", "label": "seconds > 9"},
        objectives__short={"kind": "binary", "label": "seconds < 1"},
        scenes__all__weights={"where": 2.0, "watch": 1.0, "long": 1.0, "short": 1.0},
    )
    names = ["objectives.long", "objectives.short", "scenes.all.weights.long", "scenes.all.weights.short"]
    weight = {NO_STAGE: ["scenes.all.weights.where"]}
    assert changed_parts(before, new) == {"drafts": names} | weight
    assert changed_parts(new, before) == {"drafts": names} | weight


def test_another_order_of_columns_writes_the_samples_anew_and_serves_the_same_readers() -> None:
    before = spec()
    after = spec(features=dict(reversed(CONTENT["features"].items())))
    assert changed_parts(before, after) == {"encoded": ["features (order)"]}
    assert samples_fingerprint(after) == samples_fingerprint(before)
    swapped = spec(scenes__all__weights=dict(reversed(CONTENT["scenes"]["all"]["weights"].items())))
    assert list(changed_parts(before, swapped)) == [NO_STAGE]


@pytest.mark.parametrize("name", ["rank (order)", "rank (names)", "rank.time", "it's"])
def test_a_column_of_any_name_is_a_part_of_its_own(name: str) -> None:
    columns = CONTENT["logs"]["impression"]["columns"]
    before, after = (spec(logs__impression__columns=columns | {name: of_type}) for of_type in ("int8", "int16"))
    assert changed_parts(before, after) == {"dealt": [f'logs.impression.columns."{name}"']}
    assert changed_parts(spec(), after) == {"dealt": [f'logs.impression.columns."{name}"']}
    assert samples_fingerprint(after) != samples_fingerprint(before)


class LaterSplit(Split):
    by_user: bool = False


class Explore(Part):
    share: float = 0.0
    where: str | None = None


class LaterSpec(Spec):
    split: LaterSplit = LaterSplit()
    explore: Explore = Explore()
    note: str | None = None


def test_an_optional_key_that_comes_later_invalidates_no_store_and_no_kept_work() -> None:
    dated = {"split": {"valid_from": "2026-03-07", "test_from": "2026-03-08"}}
    now, later = Spec.model_validate(CONTENT | dated), LaterSpec.model_validate(CONTENT | dated)
    assert samples_fingerprint(later) == samples_fingerprint(now)
    assert later.fingerprint() == now.fingerprint()
    for stage in STAGES:
        assert digest_of_parts(stage.folder, later) == digest_of_parts(stage.folder, now)
    assert changed_parts(now, later) == {}


def test_a_default_that_is_written_down_is_the_same_spec() -> None:
    assert samples_fingerprint(spec(tables__video__min_count=1)) == samples_fingerprint(spec())
    assert changed_parts(spec(), spec(split={"valid_days": 1}, tables__video__min_count=1)) == {}


def test_every_stage_but_the_first_builds_on_earlier_ones() -> None:
    folders = [stage.folder for stage in STAGES]
    for at, stage in enumerate(STAGES):
        assert set(stage.after) <= set(folders[:at])
        assert bool(stage.after) == (at > 0)
    assert [stage.folder for stage in stages_after("dealt")] == folders
    assert [stage.folder for stage in stages_after("learned")] == ["learned", "encoded"]
