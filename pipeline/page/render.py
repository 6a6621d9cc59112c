"""Makes a page from a template: one file that needs no other."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.page.figures import amount, count, ratio, share

SHARED = Path(__file__).parent / "templates"


def render(template: Path, **values: object) -> bytes:
    """The page of a template with these values. A value that the template uses and that is missing is an error.

    Other templates are found in its folder and in this room's: `base.html` is the frame of every page.
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
