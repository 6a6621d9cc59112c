"""What a changed spec redoes: which of its keys differ, and the first stage that each of them concerns."""

from fnmatch import fnmatchcase
from typing import Any

from pipeline.spec import Spec

# The first pattern that a key fits says where work begins again; all stages after it follow.
STAGES = {
    "logs.impression.user": "dealing",
    "logs.*.time": "dealing",
    "logs.timezone": "dealing",
    "logs.*.columns.*": "dealing",
    "logs.*.checks": "dealing",
    "logs.*.files": "dealing",
    "logs.profiles.*": "profiles",
    "logs.day": "counters",
    "logs.*": "attribution",
    "columns.*": "counters",
    "counters*": "counters",
    "tables.*.dim": "nothing",
    "tables.*.pooling": "nothing",
    "tables.*": "encoding",
    "split.*": "encoding",
    "objectives.*.label": "drafts",
    "objectives.*.where": "drafts",
    "objectives.*.baseline_by": "encoding",
    "objectives.*": "nothing",
    "scenes.*.weights.*": "nothing",
    "name": "nothing",
    "*": "drafts",
}


def changes(old: Spec, new: Spec) -> dict[str, list[str]]:
    """By stage the keys whose values differ, in the order of the stages' first appearance in STAGES.

    A key that is there in one spec only, such as a new feature or an objective that a scene begins to learn, is named
    without its parts and redoes the drafts at least.
    """
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    found: dict[str, list[str]] = {}
    for key in before.keys() ^ after.keys():
        stage = _stage(key)
        found.setdefault("drafts" if stage in ("nothing", "encoding") else stage, []).append(_whole(key, before, after))
    for key in before.keys() & after.keys():
        if before[key] != after[key]:
            found.setdefault(_stage(key), []).append(key)
    order = list(dict.fromkeys(STAGES.values()))
    return {stage: sorted(set(found[stage])) for stage in order if stage in found}


def _whole(key: str, before: dict[str, Any], after: dict[str, Any]) -> str:
    """The shortest beginning of a key that only one of the two specs has."""
    parts = key.split(".")
    fewer = before if key in after else after
    for length in range(1, len(parts)):
        start = ".".join(parts[:length])
        if not any(other == start or other.startswith(f"{start}.") for other in fewer):
            return start
    return key


def _stage(key: str) -> str:
    return next(stage for pattern, stage in STAGES.items() if fnmatchcase(key, pattern))


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat
