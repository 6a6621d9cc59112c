"""`data.html`: one page beside the samples that says what is in them, and warns of known traps."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from pipeline.atomic import replace_file
from pipeline.data_report import plots, sections
from pipeline.data_report.findings import Finding, find_traps
from pipeline.data_report.summary import Summary, summarise
from pipeline.data_report.totals import SPLITS
from pipeline.manifest import Manifest
from pipeline.page.figures import count
from pipeline.page.render import render
from pipeline.spec.objectives import RegressionObjective
from pipeline.spec.spec import Spec
from pipeline.statistics import Statistics

DATA_REPORT = "data.html"
TEMPLATE = Path(__file__).parent / "templates" / "data.html"


def write_data_report(store: Path, manifest: Manifest, statistics: Statistics) -> list[Finding]:
    """Writes `data.html` into a finished sample store, whole or not at all. Returns its warnings.

    Counts are exact. Drift, and the AUC of single features, come from a sample of the rows (sample.py).

    Raises:
        LocalError: a file of the store cannot be read.
    """
    spec = manifest.spec
    summary = summarise(store, manifest, statistics)
    findings = find_traps(manifest, statistics, summary)
    page = render(
        TEMPLATE,
        spec=spec,
        title=store.resolve().name,
        head=_facts(manifest, summary).items(),
        warnings=[list(group) for _, group in groupby(findings, key=lambda finding: finding.trap)],
        day_table=sections.days(spec, statistics),
        rows_by_day=_rows_by_day(spec, statistics),
        label_table=sections.labels(spec, summary),
        labels_by_day=[_label_by_day(spec, statistics, name) for name in spec.objectives],
        feature_table=sections.features(spec, summary),
        id_tables=[sections.coverage(spec, summary), sections.table_sizes(manifest, statistics)],
        length_table=sections.lengths(spec, summary),
        length_plots=_length_plots(summary),
        raw_tables=[
            sections.raw_rows(manifest),
            sections.rejections(manifest),
            sections.events(manifest),
            sections.impressions(manifest),
        ],
    )
    replace_file(store / DATA_REPORT, page)
    return findings


def _facts(manifest: Manifest, summary: Summary) -> dict[str, str]:
    """The facts in the head of the page."""
    facts = {"raw logs": manifest.raw_folder, "built": manifest.created[:16].replace("T", " ")}
    for split in SPLITS:
        if manifest.rows(split):
            kept, built = manifest.rows(split), summary.totals[split].rows
            of_built = f" of {count(built)}" if kept != built else ""
            facts[split] = f"{count(kept)}{of_built} rows\n{manifest.period(split)}"
    return facts


def _rows_by_day(spec: Spec, statistics: Statistics) -> Markup:
    lines = {scene: [day.scenes[scene].rows for day in statistics.days] for scene in spec.scenes}
    return _by_day("Rows", statistics, {"all scenes": [day.rows for day in statistics.days], **lines}, "rows")


def _label_by_day(spec: Spec, statistics: Statistics, name: str) -> Markup:
    """A line for each scene that learns the objective."""
    objective = spec.objectives[name]
    unit = (objective.unit or "mean") if isinstance(objective, RegressionObjective) else None
    learned = [scene for scene in spec.scenes if name in spec.scenes[scene].weights]
    lines = {scene: [day.scenes[scene].labels[name].mean for day in statistics.days] for scene in learned}
    return _by_day(name, statistics, lines, unit)


def _by_day(
    title: str, statistics: Statistics, lines: Mapping[str, Sequence[float | None]], unit: str | None
) -> Markup:
    evaluated = [day.date for day in statistics.days if day.split != "train"]
    return Markup(plots.by_day(title, [day.date for day in statistics.days], lines, evaluated, unit))


def _length_plots(summary: Summary) -> list[Markup]:
    features = dict.fromkeys(feature for split in SPLITS for feature in summary.totals[split].lengths)
    return [
        Markup(
            plots.lengths(feature, {s: summary.totals[s].lengths[feature] for s in SPLITS if summary.totals[s].rows})
        )
        for feature in features
    ]
