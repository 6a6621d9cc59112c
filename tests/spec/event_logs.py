"""A spec of event logs, to change."""

import copy
from typing import Any

EVENT_LOGS: dict[str, Any] = {
    "name": "small",
    "logs": {
        "impression": {
            "files": "shown",
            "columns": {"id": "int64", "user": "int64", "video": "int64", "ms": "int64", "tab": "string"},
            "id": ["id"],
            "user": "user",
            "video": "video",
            "time": "ms",
        },
        "events": {
            "play": {
                "files": "play",
                "columns": {"id": "int64", "user": "int64", "at": "int64", "seconds": "float64"},
                "time": "at",
                "within_s": 60,
                "values": {"seconds": "sum"},
            }
        },
        "profiles": {"clip": {"files": "clip", "columns": {"video": "int64", "length": "int64"}, "key": "video"}},
    },
    "counters": {"days": [1, 7], "by": {"user": "user"}, "measures": {"shown": {}, "plays": {"event": "play"}}},
    "tables": {
        "video": {"encode": "vocab", "dim": 4},
        "user": {"encode": "hash", "rows": 10, "dim": 2},
        "length": {"encode": "quantiles", "buckets": 3, "dim": 2},
    },
    "features": {
        "video": {"kind": "id", "table": "video"},
        "played": {"kind": "history", "table": "video", "of": "video", "event": "play", "last": 3},
        "user": {"kind": "id", "table": "user"},
        "length": {"kind": "id", "table": "length"},
        "hour": {"kind": "dense"},
    },
    "objectives": {
        "play": {"kind": "binary", "label": "play"},
        "watch": {"kind": "regression", "label": "seconds", "baseline_by": "length"},
    },
    "scenes": {
        "feed": {"where": "tab = 'feed'", "weights": {"watch": 0.5, "play": 1}},
        "other": {"where": "tab != 'feed'", "weights": {"play": 0}},
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The spec above with another value at a dotted path; `...` deletes the key."""
    content = copy.deepcopy(EVENT_LOGS)
    *parents, last = path.split(".")
    place = content
    for key in parents:
        place = place.setdefault(key, {})
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content
