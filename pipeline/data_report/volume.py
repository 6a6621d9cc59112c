"""Which days have far more or fewer rows than a day usually has."""

from datetime import date, timedelta

import numpy as np

# The usual limit of a robust z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
MOST_DEVIATIONS = 3.5
# Days that hardly differ have a deviation of almost 0, and then any day would be abnormal: at least 5 % are usual.
LEAST_DEVIATION = 0.05
# Whatever the spread: half the rows, or twice, is not the same traffic.
MOST_RATIO = 2.0
# The median of fewer days says little about what is usual.
MIN_DAYS = 4


def abnormal_days(rows: dict[str, int]) -> dict[str, float]:
    """Rows of each abnormal day, by date, over those of the median day; a date between others that is absent has none.

    A day is abnormal if the robust z-score of its rows' logarithm, 0.6745 (ln n - median) / MAD, is beyond
    MOST_DEVIATIONS, or if its rows are under half or over twice the median. No day is where there are too few of them.
    """
    if len(rows) < MIN_DAYS:
        return {}
    dates = sorted(rows)
    first, last = date.fromisoformat(dates[0]), date.fromisoformat(dates[-1])
    every = [str(first + timedelta(days=day)) for day in range((last - first).days + 1)]
    counts = np.array([rows.get(day, 0) for day in every])
    median = np.median([rows[day] for day in dates])
    logs = np.log(np.maximum(counts, 1) / max(median, 1))
    spread = max(float(np.median(np.abs(logs))), LEAST_DEVIATION)
    abnormal = (np.abs(0.6745 * logs / spread) > MOST_DEVIATIONS) | (np.abs(logs) > np.log(MOST_RATIO))
    return {day: float(count / max(median, 1)) for day, count, odd in zip(every, counts, abnormal, strict=True) if odd}
