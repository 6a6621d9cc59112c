"""Days with far more or far fewer rows than usual."""

from datetime import date, timedelta

import numpy as np

# The usual limit of a robust z-score (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
MOST_DEVIATIONS = 3.5
# Where days hardly differ, their deviation is almost 0, and any day would be abnormal: 5 % is always usual.
LEAST_DEVIATION = 0.05
# Half or twice the rows of the median day is abnormal, however much the days differ.
MOST_RATIO = 2.0
# The median of fewer days says little.
MIN_DAYS = 4


def abnormal_days(rows: dict[str, int]) -> dict[str, float]:
    """The rows of each abnormal day over those of the median day, by date. A missing date between others has 0 rows.

    A day is abnormal if the robust z-score of the logarithm of its rows, 0.6745 (ln n - median) / MAD, is beyond
    MOST_DEVIATIONS, or if it has under half or over twice the rows of the median day. With fewer than MIN_DAYS days, no
    day is abnormal.
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
