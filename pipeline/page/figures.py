"""How a figure is written on a page."""


def count(value: float) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """Four decimals: the third is what a change of a model is worth."""
    return _minus(f"{value:.4f}")


def share(value: float) -> str:
    """0.8123 as 81.2 %."""
    return _minus(f"{100 * value:.1f} %")


def amount(value: float) -> str:
    """Four significant digits, or all digits before the point; never a power of ten but for the smallest."""
    return _minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}")


def _minus(figure: str) -> str:
    return figure.replace("-", "−")  # as wide as the digits
