"""How figures are written on a page."""


def count(value: float) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    """Four decimals: a good change of a model moves the third."""
    return _minus(f"{value:.4f}")


def share(value: float) -> str:
    """0.8123 as 81.2 %."""
    return _minus(f"{100 * value:.1f} %")


def amount(value: float) -> str:
    """Four significant digits, or all digits before the point. Only the smallest numbers get a power of ten."""
    return _minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}")


def _minus(figure: str) -> str:
    return figure.replace("-", "−")  # a minus sign is as wide as the digits
