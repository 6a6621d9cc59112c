from collections.abc import Callable

import pytest

from pipeline.page.figures import amount, count, ratio, share


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (count, 1234567, "1,234,567"),
        (ratio, -0.12345, "−0.1235"),
        (share, 0.8123, "81.2 %"),
        (amount, 6.84, "6.840"),
        (amount, -0.05, "−0.05000"),
        (amount, 12345.6, "12,346"),
        (amount, 0.0, "0.000"),
    ],
)
def test_how_figures_are_written(form: Callable[[float], str], value: float, text: str) -> None:
    assert form(value) == text
