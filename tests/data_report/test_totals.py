from pipeline.data_report.totals import split_totals
from pipeline.manifest import LabelStatistics, SplitName
from pipeline.statistics import DayStatistics, SceneStatistics, Statistics


def day(
    date: str, split: SplitName, rows: int, label: LabelStatistics, lengths: list[int], outside: int
) -> DayStatistics:
    return DayStatistics(
        date=date,
        split=split,
        rows=rows,
        scenes={"feed": SceneStatistics(rows=rows, labels={"like": label})},
        missing={"tags": lengths[0]},
        lengths={"tags": lengths},
        ids={"tags": 10},
        outside={"tags": outside},
    )


def test_the_days_of_a_split_are_added_up() -> None:
    none = LabelStatistics(rows=0, mean=None, min=None, max=None)
    days = [
        day("2026-03-01", "train", 10, none, [4, 6], 1),
        day("2026-03-02", "train", 20, LabelStatistics(rows=5, mean=0.2, min=0, max=1), [5, 5, 10], 2),
        day("2026-03-03", "train", 30, LabelStatistics(rows=15, mean=1, min=-1, max=3), [30], 6),
        day("2026-03-04", "test", 40, none, [40], 5),
    ]
    totals = split_totals(Statistics(days=days, distinct={}))
    train, valid, test = totals["train"], totals["valid"], totals["test"]
    assert (train.rows, valid.rows, test.rows) == (60, 0, 40)
    assert train.labels == {"feed": {"like": LabelStatistics(rows=20, mean=0.8, min=-1, max=3)}}
    assert train.lengths == {"tags": {0: 39, 1: 11, 2: 10}}
    assert (train.missing_share("tags"), train.outside_share("tags")) == (0.65, 0.3)
    assert (valid.missing_share("tags"), valid.outside_share("tags")) == (None, None)
    assert test.labels["feed"]["like"] == none
