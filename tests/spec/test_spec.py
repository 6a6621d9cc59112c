"""The spec's parts must agree with each other; what is derived from it is derived in its order."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.spec.features import HashTable, VocabTable
from pipeline.spec.file import load_spec
from pipeline.spec.spec import Spec
from tests.spec.event_logs import EVENT_LOGS, changed

SPECS = Path(__file__).parents[2] / "feature_specs"


@pytest.mark.parametrize("name", ["short_video", "kuairand"])
def test_the_shipped_specs_load(name: str) -> None:
    spec = load_spec(SPECS / f"{name}.yaml")
    assert spec.name == name
    assert bool(spec.logs.events) == (name == "short_video")
    assert bool(spec.logs.impression.outcomes) == (name == "kuairand")


def test_the_shipped_specs_declare_what_the_issue_names() -> None:
    short_video, kuairand = (load_spec(SPECS / f"{name}.yaml") for name in ("short_video", "kuairand"))
    assert {name: list(scene.weights) for name, scene in short_video.scenes.items()} == {
        "discover": ["stay", "dwell", "click"],
        "player": ["play_time", "like"],
    }
    assert list(kuairand.objectives) == ["click", "long_view", "like", "profile_enter", "play_time"]
    assert {scene.where for scene in kuairand.scenes.values()} == {"tab = 1", "tab = 0", "tab not in (0, 1)"}


def test_what_is_derived_keeps_the_order_of_the_spec() -> None:
    spec = Spec.model_validate(EVENT_LOGS)
    assert spec.terms == [("feed", "watch", 0.5), ("feed", "play", 1.0), ("other", "play", 0.0)]
    assert list(spec.sparse_features) == ["video", "played", "user", "length"]
    assert list(spec.dense_features) == ["hour"]
    assert list(spec.logs.tables()) == ["impression", "play", "clip"]
    assert spec.counters is not None
    assert spec.counters.columns() == ["user_shown_1d", "user_shown_7d", "user_plays_1d", "user_plays_7d"]
    assert isinstance(spec.tables["user"], HashTable)
    assert isinstance(spec.tables["video"], VocabTable)
    assert (spec.tables["video"].min_count, spec.tables["video"].pooling) == (1, "mean")


def test_a_spec_survives_its_own_json_and_cannot_be_changed() -> None:
    spec = Spec.model_validate(EVENT_LOGS)
    assert Spec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("logs.timezone", "Asia/Shanghai"),
        ("scenes.feed.weights.play", 1.5),
        ("objectives.play.label", "not play"),
        ("tables.video.dim", 8),
        ("features.played.last", 4),
        ("split", {"valid_days": 2}),
    ],
)
def test_the_fingerprint_changes_with_the_content(path: str, value: object) -> None:
    assert Spec.model_validate(changed(path, value)).fingerprint() != Spec.model_validate(EVENT_LOGS).fingerprint()


def test_the_fingerprint_is_the_same_whether_a_default_is_written_or_not() -> None:
    written = changed("split", {"valid_days": 1, "test_days": 1})
    assert Spec.model_validate(written).fingerprint() == Spec.model_validate(EVENT_LOGS).fingerprint()
