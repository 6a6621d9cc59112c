"""Which days are for training, validation and test."""

from collections.abc import Iterable
from datetime import date

from pipeline.errors import StrataError
from pipeline.manifest import SplitName
from pipeline.spec.spec import Split
from pipeline.storage import Folder


def split_days(days: Iterable[date], split: Split, raw: Folder) -> dict[date, SplitName]:
    """The split of each day, by the dates that the spec names. Without dates the last days are test and validation.

    Raises StrataError if one of the three has no day.
    """
    ordered = sorted(days)
    if not ordered:
        raise StrataError("has no impression that meets the spec's filter", where=raw, fix="correct `filter`")
    if split.valid_from and split.test_from:
        valid, test = (sum(day < begin for day in ordered) for begin in (split.valid_from, split.test_from))
        period = f"they are {ordered[0]} to {ordered[-1]}"
        wanted = f"{period}, validation begins on {split.valid_from} and the test on {split.test_from}"
    else:
        test = len(ordered) - split.test_days
        valid = test - split.valid_days
        wanted = f"validation and test alone take {split.valid_days + split.test_days}"
    if not 0 < valid < test < len(ordered):
        fix = (
            "add earlier days, or change `split` in the spec" if valid <= 0 else "add the later days, or change `split`"
        )
        raise StrataError(f"has impressions on {len(ordered)} days, but {wanted}", where=raw, fix=fix)
    return {d: "train" if at < valid else "valid" if at < test else "test" for at, d in enumerate(ordered)}
