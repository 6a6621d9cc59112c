"""Which parts of a spec each task of a build depends on.

This is the one place that says so. From it follow the key under which a task's results are kept (exactly these parts
are hashed), what `--explain` says of a changed spec, and the samples' fingerprint, which is about all of them. What is
not named here (weights, losses, units, dimensions, pooling, the spec's name) belongs to a run: it changes no sample.

A part is a value of the spec under its key, such as `logs.events.click.within_s`. A column whose name has blanks or
signs stands in quotes: `logs.impression.columns."watch.time (s)"`. An optional key that is left at its default is no
part, so a new optional key changes no fingerprint and no task's key.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.spec.spec import Spec

Parts = dict[str, Any]
# Parts that a mapping has beside its values: its names as a set, and in their order.
NAMES, ORDER = " (names)", " (order)"


@dataclass(frozen=True)
class Stage:
    """Tasks of one kind, by the folder of their results below `.work`, and the word by which a user knows them.

    `parts` are patterns of the keys that they depend on. `*` stands for a name, at the end for all below; `{own}` for
    the key of what the task is about, such as a raw table. By way of `by_days` a task depends on the split of its own
    days alone. `after` names the stages whose results it takes.
    """

    folder: str
    word: str
    parts: tuple[str, ...] = ()
    by_days: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


STAGES = (
    Stage(
        "dealt",
        "dealing",
        (
            "logs.timezone",
            "logs.impression.id",
            "logs.impression.user",
            "logs.impression.video",
            "{own}.files",
            "{own}.columns.*",
            "{own}.checks",
            "{own}.time",
            "{own}.key",
            "{own}.valid_from",
        ),
    ),
    Stage("profiles", "profiles", ("{own}.columns.*", "{own}.key", "{own}.valid_from"), after=("dealt",)),
    Stage(
        "attributed",
        "attribution",
        (
            "logs.timezone",
            "logs.impression.columns.*",
            "logs.impression.id",
            "logs.impression.user",
            "logs.impression.time",
            "logs.events.*.columns.*",
            "logs.events.*.time",
            "logs.events.*.within_s",
            "logs.events.*.values.*",
        ),
        after=("dealt",),
    ),
    Stage(
        "profiled",
        "profiles in force",
        (
            "logs.profiles.*.columns.*",
            "logs.profiles.*.key",
            "logs.profiles.*.valid_from",
            "logs.profiles.*.valid_to",
        ),
        after=("profiles", "attributed"),
    ),
    Stage(
        "counted",
        "counters",
        ("logs.day", "columns.*", "counters.by.*", "counters.measures.*"),
        after=("attributed", "profiled"),
    ),
    Stage("daily", "counters", (), after=("counted",)),
    Stage("windows", "counters", ("counters.*",), after=("daily",)),
    Stage(
        "drafts",
        "drafts",
        (
            "logs.day",
            "columns.*",
            "counters.*",
            "tables.*.encode",
            "features.*",
            "objectives.*.label",
            "objectives.*.where",
            "scenes.*.where",
            f"scenes.*.weights{NAMES}",
            "filter",
            "downsample",
            "sample_weight",
        ),
        after=("attributed", "profiled", "counted", "windows"),
    ),
    Stage(
        "learned",
        "vocabularies",
        ("{own}.encode", "{own}.min_count", "{own}.buckets", "{own}.normalise"),
        by_days=("split.*",),
        after=("drafts",),
    ),
    Stage(
        "encoded",
        "encoding",
        (
            *("tables.*.encode", "tables.*.min_count", "tables.*.rows", "tables.*.buckets", "tables.*.boundaries"),
            *("objectives.*.baseline_by", f"features{ORDER}", f"objectives{ORDER}", f"scenes{ORDER}"),
        ),
        by_days=("split.*",),
        after=("drafts", "learned"),
    ),
)
# Beside the stages' folders, in `changed_parts`.
BY_DAYS, AT_THE_END, NO_STAGE = "the split of days", "the end", ""
# What the end of every build checks; it keeps no results.
CHECKED_AT_THE_END = ("objectives.*.kind",)


@lru_cache(maxsize=1024)
def digest_of_parts(folder: str, spec: Spec, own: str = "") -> str:
    """A digest of the parts that a task of the stage depends on; `own` is the key of what it is about."""
    (stage,) = (stage for stage in STAGES if stage.folder == folder)
    return _digest(_select(all_parts(spec), [pattern.replace("{own}", own) for pattern in stage.parts]))


def samples_fingerprint(spec: Spec) -> str:
    """Equal for specs that make the same samples of the same logs, whatever the order of their columns."""
    patterns = [pattern for stage in STAGES for pattern in (*stage.parts, *stage.by_days) if ORDER not in pattern]
    patterns = [pattern for of_stage in patterns for pattern in _for_any(of_stage)]
    return _digest(_select(all_parts(spec), [*patterns, *CHECKED_AT_THE_END]))


def changed_parts(old: Spec, new: Spec) -> dict[str, list[str]]:
    """The parts that differ, by the folder of the first stage that depends on them.

    Tasks depend on those under BY_DAYS by way of their days' split alone. No task depends on those under AT_THE_END,
    which the end of a build checks, and under NO_STAGE.

    A part that only one of the two specs has, such as a new feature, is named once and without its own parts. Stages
    come in their order. Those after the first are done again as far as their input changes with it.
    """
    before, after = all_parts(old), all_parts(new)
    order = [*(stage.folder for stage in STAGES), BY_DAYS, AT_THE_END, NO_STAGE]
    first: dict[str, str] = {}
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key):
            stage = _first_stage(key)
            for name in _names(key, before, after):
                first[name] = min(stage, first.get(name, stage), key=order.index)
    return {stage: names for stage in order if (names := sorted(name for name, of in first.items() if of == stage))}


def stages_after(folder: str) -> list[Stage]:
    """The stage and all that build on it, directly or not."""
    found: dict[str, Stage] = {}
    for stage in STAGES:
        if stage.folder == folder or found.keys() & {*stage.after}:
            found[stage.folder] = stage
    return list(found.values())


def all_parts(spec: Spec) -> Parts:
    """Every value of the spec by its key."""
    return dict(_flat(spec.model_dump(mode="json", exclude_defaults=True), ""))


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        key = _quoted(key)
        if isinstance(inner, dict):
            yield f"{prefix}{key}{NAMES}", sorted(inner)
            yield f"{prefix}{key}{ORDER}", list(inner)
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def _quoted(name: str) -> str:
    """In quotes unless it is a plain word: no name of a column looks like several keys, or ends as NAMES does."""
    return name if re.fullmatch(r"\w+", name) else f'"{name}"'


def _select(parts: Parts, patterns: list[str]) -> Parts:
    return {key: value for key, value in parts.items() if any(_fits(key, pattern) for pattern in patterns)}


def _fits(key: str, pattern: str) -> bool:
    """A pattern means the names or the order of a mapping only where it says so."""
    special = next((end for end in (NAMES, ORDER) if key.endswith(end)), "")
    return pattern.endswith(special) and bool(_compiled(pattern).fullmatch(key))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    start, below = (pattern[:-1], ".+") if pattern.endswith(".*") else (pattern, "")
    return re.compile(re.escape(start).replace(r"\*", r"[^.]+") + below)


def _for_any(pattern: str) -> list[str]:
    """The pattern for whatever a task may be about."""
    every = ("logs.impression", "logs.events.*", "logs.profiles.*", "tables.*", "features.*")
    return [pattern.replace("{own}", own) for own in every] if "{own}" in pattern else [pattern]


def _first_stage(key: str) -> str:
    for stage in STAGES:
        for folder, patterns in ((stage.folder, stage.parts), (BY_DAYS, stage.by_days)):
            if any(_fits(key, one) for pattern in patterns for one in _for_any(pattern)):
                return folder
    return AT_THE_END if any(_fits(key, pattern) for pattern in CHECKED_AT_THE_END) else NO_STAGE


def _names(key: str, before: Parts, after: Parts) -> list[str]:
    """What to call a part that differs: the shortest beginning of its key that only one of the two specs has.

    The names of a mapping differ because some are new or gone: these are named.
    """
    mapping = key.removesuffix(NAMES).removesuffix(ORDER)
    if mapping != key and mapping + NAMES in before and mapping + NAMES in after:
        differ = set(before[mapping + NAMES]) ^ set(after[mapping + NAMES])
        return [f"{mapping}.{_quoted(name)}" for name in differ] or [key]
    if key in before and key in after:
        return [key]
    fewer = before if key in after else after
    parts = re.findall(r'"[^"]*"|[^."]+', mapping)
    starts = (".".join(parts[:length]) for length in range(1, len(parts)))
    only_one = (s for s in starts if not any(k == s or k.startswith((f"{s}.", f"{s} (")) for k in fewer))
    return [next(only_one, mapping)]


def _digest(parts: Parts) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
