"""Whether the samples of one spec mean the same as those of another, so that a model of the one can read the other."""

import re
from collections.abc import Iterable

from pipeline.spec.parts import NO_STAGE, all_parts, changed_parts
from pipeline.spec.spec import Spec

RAW_TABLE = r"logs\.(impression|(events|profiles)\.[^.]+)"
# These say which rows there are, or what is learned from them, which is mapped by value.
FREE = re.compile(
    rf"split.*|filter|downsample|sample_weight|{RAW_TABLE}\.(files|checks)|tables\.[^.]+\.(min_count|buckets)|"
    r"objectives\.[^.]+\.baseline_by|scenes\.[^.]+\.weights.*|.+ \(order\)"
)
# The samples may have more of these.
ENTRY = re.compile(
    r"(columns|counters\.by|counters\.measures|tables|features|objectives|scenes|logs\.events|logs\.profiles)\.[^.]+|"
    rf"{RAW_TABLE}\.columns\..+|columns|counters|logs\.events|logs\.profiles"
)


def incompatible_parts(run: Spec, samples: Spec) -> tuple[list[str], list[str]]:
    """The keys of the run's spec that the samples' spec lacks, and those that mean something else in it.

    Both are empty if every feature, label, mask and scene of the run is a column of the samples with the same meaning.
    Declarations are compared as text: another way to write the same SQL counts as another meaning.
    """
    ours, theirs = all_parts(run), all_parts(samples)
    missing, different = [], []
    for stage, names in changed_parts(run, samples).items():
        for name in names:
            is_entry = bool(ENTRY.fullmatch(name))
            if FREE.fullmatch(name) or stage == NO_STAGE:
                continue
            if is_entry and not _has(theirs, name):
                missing.append(name)
            elif not (is_entry and not _has(ours, name)) and not _has_more_days(name, run, samples):
                different.append(name)
    return missing, different


def _has(keys: Iterable[str], name: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name} (")) for key in keys)


def _has_more_days(name: str, run: Spec, samples: Spec) -> bool:
    """A counter over other days is another column."""
    if name != "counters.days" or not run.counters or not samples.counters:
        return False
    return set(run.counters.days) <= set(samples.counters.days)
