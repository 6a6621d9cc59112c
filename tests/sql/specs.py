"""Specs to change and to check."""

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StrataError
from pipeline.spec.spec import Spec
from pipeline.sql.lineage import check_lineage

SPECS = Path(__file__).parents[2] / "feature_specs"


IMPRESSION = {
    "files": "shown",
    "columns": {"id": "int64", "uid": "int64", "video": "int64", "ms": "int64", "tab": "string"},
    "id": ["id"],
    "user": "uid",
    "video": "video",
    "time": "ms",
}


EVENT_LOGS: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": IMPRESSION,
        "events": {
            "play": {
                "files": "play",
                "columns": {"id": "int64", "uid": "int64", "at": "int64", "seconds": "float64"},
                "time": "at",
                "within_s": 60,
                "values": {"seconds": "sum"},
            }
        },
        "profiles": {"clip": {"files": "clip", "columns": {"video": "int64", "length": "int32"}, "key": "video"}},
    },
    "columns": {"hour": "extract(hour from impression_time)", "late": "hour > 20"},
    "counters": {
        "days": [7],
        "by": {"user": "uid", "hour": "hour"},
        "measures": {"shown": {"where": "late"}, "played": {"event": "play", "mean": "seconds / length"}},
    },
    "tables": {
        "video": {"encode": "vocab", "dim": 4},
        "tag": {"encode": "hash", "rows": 9, "dim": 4},
        "length": {"encode": "quantiles", "buckets": 3, "dim": 2},
    },
    "features": {
        "bucket": {"kind": "id", "table": "length", "source": "length"},
        "video": {"kind": "id", "table": "video"},
        "played": {
            "kind": "history",
            "table": "video",
            "of": "video",
            "event": "play",
            "where": "seconds > 3",
            "last": 3,
        },
        "tab": {"kind": "id_list", "table": "tag"},
        "length": {"kind": "dense"},
        "rate": {"kind": "dense", "source": "user_played_7d / (user_shown_7d + 1)"},
    },
    "objectives": {
        "play": {"kind": "binary", "label": "play"},
        "watch": {"kind": "regression", "label": "seconds / length", "where": "play and length > 0"},
    },
    "scenes": {"feed": {"where": "tab = 'feed'", "weights": {"watch": 1, "play": 1}}},
}


def changed(content: dict[str, Any], path: str, value: object) -> Spec:
    content = copy.deepcopy(content)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return Spec.model_validate(content)


def refusal(spec: Spec) -> str:
    with pytest.raises(StrataError) as error:
        check_lineage(spec, Path("spec.yaml"))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("spec.yaml: ")
