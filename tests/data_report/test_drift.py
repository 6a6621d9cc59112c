"""The PSI against figures computed by hand and bin by bin."""

import math
from collections import Counter

import numpy as np
import polars as pl
import pytest

from pipeline.data_report.drift import population_stability as stability
from pipeline.data_report.drift import psi
from pipeline.spec.spec import Spec


def rows(**features: object) -> pl.DataFrame:
    """2,000 rows. Features that are not given are constant."""
    constant = {"user": 1, "video": 1, "tags": [1], "watched": [1], "price": 1.0}
    columns = {f"feature_{name}": features.get(name, [value] * 2000) for name, value in constant.items()}
    return pl.DataFrame({"sample_weight": features.get("weight", [1.0] * 2000), **columns})


def by_hand(p: dict[object, float], q: dict[object, float]) -> float:
    total = {id(side): sum(side.values()) for side in (p, q)}
    share = lambda side, key: max(side.get(key, 0) / total[id(side)], 1e-4)  # noqa: E731
    return sum((share(q, k) - share(p, k)) * math.log(share(q, k) / share(p, k)) for k in {*p, *q})


def test_the_formula() -> None:
    # (0.9 - 0.5) ln(0.9 / 0.5) + (0.1 - 0.5) ln(0.1 / 0.5)
    assert psi(np.array([50, 50]), np.array([18, 2])) == pytest.approx(0.4 * math.log(1.8) - 0.4 * math.log(0.2))
    assert psi(np.array([3, 1]), np.array([30, 10])) == 0
    assert psi(np.array([1, 1]), np.array([0, 4])) == pytest.approx(0.5 * math.log(2) + 0.4999 * math.log(5000))


def test_numbers_are_compared_in_training_deciles_and_a_bin_of_their_own_for_missing_ones(spec: Spec) -> None:
    train = [0.0] * 1000 + list(range(1, 1001))
    test = [0.0] * 500 + [950.0] * 1500
    # Deciles of the numbers 1 to 1000 hold 5 % of all rows each.
    p = {"missing": 50.0, **{decile: 5.0 for decile in range(10)}}
    q = {"missing": 25.0, 9: 75.0}
    found = stability(spec, rows(price=train), rows(price=test))
    assert found["price"] == pytest.approx(by_hand(p, q), rel=0.01)
    assert found["user"] == found["tags"] == 0


def test_ids_are_compared_by_frequent_values_others_and_missing(spec: Spec) -> None:
    # 1 to 3 are frequent, 100 to 599 are not: one row each.
    train = [0] * 100 + [1] * 800 + [2] * 400 + [3] * 200 + list(range(100, 600))
    test = [0] * 300 + [1] * 800 + [3] * 300 + list(range(2000, 2600))
    p = {"missing": 100, 1: 800, 2: 400, 3: 200, "other": 500}
    q = {"missing": 300, 1: 800, 3: 300, "other": 600}
    found = stability(spec, rows(user=train), rows(user=test))
    assert found["user"] == pytest.approx(by_hand(p, q))


def test_a_list_counts_its_elements_and_an_empty_one_as_missing(spec: Spec) -> None:
    train, test = [[1, 2]] * 1000 + [[]] * 1000, [[2]] * 1500 + [[7, 1]] * 500
    p = Counter({1: 1000, 2: 1000, "missing": 1000})
    q = Counter({1: 500, 2: 1500, "other": 500})
    assert stability(spec, rows(tags=train), rows(tags=test))["tags"] == pytest.approx(by_hand(p, q))


def test_weights_undo_down_sampling(spec: Spec) -> None:
    log = [1] * 1000 + [2] * 1000
    thinned = {"user": [1] * 1800 + [2] * 200, "weight": [1.0] * 1800 + [9.0] * 200}
    assert stability(spec, rows(**thinned), rows(user=log))["user"] == pytest.approx(0)


def test_too_few_rows_say_nothing(spec: Spec) -> None:
    assert stability(spec, rows(), rows().head(999)) == {}
