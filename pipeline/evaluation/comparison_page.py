"""`report.html` of a comparison: the tables of the report, with a line per run below each objective."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.atomic import replace_file
from pipeline.evaluation.measure import Metrics
from pipeline.evaluation.metric_tables import TITLES, MetricCell, MetricTable, tables
from pipeline.page.render import render
from pipeline.spec.spec import Spec

TEMPLATE = Path(__file__).parent / "templates" / "comparison.html"


@dataclass(frozen=True)
class Change:
    """The difference below a figure; the verdict is a word, as colour alone does not reach every reader."""

    text: str
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The reference's table, and for each of its lines a line per run, the changes below their figures."""

    table: MetricTable
    lines: dict[str, dict[str, list[tuple[MetricCell, Change | None]]]]


def write_comparison(
    spec: Spec, compared: Metrics, context: Mapping[str, str], facts: Mapping[str, Mapping[str, str]], out: Path
) -> None:
    """Writes the page of a comparison, whole or not at all.

    Args:
        spec: what the specs of the runs have in common.
        compared: what `compare` found.
        context: what the head of the page says of all runs, in this order; `run` is also its title.
        facts: what it says of each run, by name; a run may lack some.
        out: the file.
    """
    runs, differences = compared["runs"], compared["differences"]
    overall = _comparisons(spec, runs, differences)
    page = render(
        TEMPLATE,
        spec=spec,
        metrics=runs[compared["reference"]],
        reference=compared["reference"],
        context=context,
        facts=facts,
        names=list(dict.fromkeys(name for of_run in facts.values() for name in of_run)),
        overall=overall,
        by_scene={
            scene: _comparisons(spec, _within(runs, scene), _within(differences, scene)) for scene in spec.scenes
        },
        glossary=[column for shown in overall.values() for column in shown.table.columns if column.meaning],
    )
    replace_file(out, page)


def differing_settings(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Of each run the settings in which the runs differ, nested names joined by dots: {"a": {"model.head": "ple"}}."""
    flat = {run: dict(_leaves(tree)) for run, tree in settings.items()}
    names = dict.fromkeys(name for leaves in flat.values() for name in leaves)
    differ = [name for name in names if len({leaves.get(name, "") for leaves in flat.values()}) > 1]
    return {run: {name: leaves.get(name, "") for name in differ} for run, leaves in flat.items()}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, str(value)


def _within(runs: Metrics, scene: str) -> Metrics:
    return {run: found["scenes"][scene] for run, found in runs.items()}


def _comparisons(spec: Spec, runs: Metrics, differences: Metrics) -> dict[str, Comparison]:
    """A comparison per kind of objective that is there, by its title."""
    by_run = {run: tables(spec, found["objectives"]) for run, found in runs.items()}
    reference = next(iter(runs))
    kind_of = {name: figures["kind"] for name, figures in runs[reference]["objectives"].items()}
    compared = {}
    for title, table in by_run[reference].items():
        # The runs share their rows: where there are too few for one, there are too few for all, of the same.
        assert all(found[title].notes == table.notes for found in by_run.values())
        names = [name for name, kind in kind_of.items() if TITLES[kind] == title]
        compared[title] = Comparison(
            table,
            {
                heading: {run: _with_changes(by_run[run][title], heading, differences.get(run), name) for run in runs}
                for heading, name in zip(table.lines, names, strict=True)
            },
        )
    return compared


def _with_changes(
    table: MetricTable, heading: str, changes: Metrics | None, name: str
) -> list[tuple[MetricCell, Change | None]]:
    """A run's line; the reference has no changes."""
    of_objective = changes["objectives"][name] if changes else {}
    return [
        (cell, _change(cell, of_objective.get(column.key)))
        for column, cell in zip(table.columns, table.lines[heading], strict=True)
    ]


def _change(cell: MetricCell, change: Metrics | None) -> Change | None:
    """With the decimals of its figure; one too small for them is about the same."""
    if change is None:
        return None
    decimals = len(cell.text.partition(".")[2])
    text = f"{change['difference']:+,.{decimals}f}".replace("-", "−")
    shown = any(digit in text for digit in "123456789")
    return Change(text, change["verdict"]) if shown else Change("≈", "same")
