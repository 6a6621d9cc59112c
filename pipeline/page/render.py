"""Makes a page from a template: one file that needs nothing but itself."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.page.figures import amount, count, ratio, share

SHARED = Path(__file__).parent / "templates"


def render(template: Path, **values: object) -> bytes:
    """The page that a template gives with these values; a name that it uses and that is missing is an error.

    It finds other templates in its own folder and in that of this room: `base.html`, the frame of every page.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"amount": amount, "count": count, "ratio": ratio, "share": share}
    return environment.get_template(template.name).render(**values).encode()
