"""What the pages of this room have in common: their templates, and how a figure is written in them."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.evaluation.tables import amount, count, share

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> bytes:
    """The page that a template gives with these values; a name that it uses and that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"amount": amount, "count": count, "share": share}
    return environment.get_template(template).render(**values).encode()
