import math

import pytest

from pipeline.training.stepping.optimisers import ScheduleConfig


def factors(total: int, **options: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(options)
    return [schedule.factor(step, total) for step in range(total)]


def test_the_rate_grows_from_above_zero_then_falls_to_its_final_share():
    linear = factors(10, warmup=0.4, decay="linear", final=0.5)
    assert linear == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    cosine = factors(7, warmup=0, decay="cosine", final=0.2)
    assert cosine == pytest.approx([0.2 + 0.8 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(7)])
    assert factors(4, warmup=0.5, decay="none") == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.99])
@pytest.mark.parametrize("total", [1, 2, 3, 100])
def test_it_is_never_zero_nor_above_the_full_rate(total: int, warmup: float, decay: str):
    found = factors(total, warmup=warmup, decay=decay)
    assert max(found) == pytest.approx(1.0)
    assert min(found) >= 0.01
    if warmup == 0 and total > 1 and decay != "none":
        assert found[-1] == pytest.approx(ScheduleConfig().final)
