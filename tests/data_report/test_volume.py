import pytest

from pipeline.data_report.volume import abnormal_days


def counts(*rows: int) -> dict[str, int]:
    return {f"2026-02-{26 + day:02d}" if day < 3 else f"2026-03-{day - 2:02d}": n for day, n in enumerate(rows)}


def test_usual_ups_and_downs_are_normal() -> None:
    assert abnormal_days(counts(1000, 1100, 950, 1020, 1400, 1350, 990)) == {}


@pytest.mark.parametrize(("rows", "of_median"), [(2100, 2.1), (480, 0.48), (1300, 1.3), (770, 0.77)])
def test_a_day_unlike_the_others_is_abnormal(rows: int, of_median: float) -> None:
    """On days that hardly differ, 30 % is far; see the factor of two among days that do below."""
    assert abnormal_days(counts(1000, 1001, rows, 999, 1000)) == {"2026-02-28": of_median}


def test_twice_the_median_is_abnormal_however_much_the_days_differ() -> None:
    assert abnormal_days(counts(1000, 700, 1700, 650, 1500, 2700)) == {"2026-03-03": 2.16}


def test_a_day_without_rows_between_others_is_abnormal() -> None:
    days = counts(1000, 1000, 1000, 1000, 1000, 1000)
    del days["2026-03-01"]
    assert abnormal_days(days) == {"2026-03-01": 0}


def test_a_few_days_have_no_usual_volume() -> None:
    assert abnormal_days(counts(1000, 10, 3000)) == {}
