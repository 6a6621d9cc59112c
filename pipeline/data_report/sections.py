"""The tables of the data report, with their figures as text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.data_report.findings import HIGH_OUTSIDE, HIGH_PSI, LEAK_AUC
from pipeline.data_report.summary import Summary
from pipeline.data_report.totals import SPLITS
from pipeline.manifest import Manifest
from pipeline.page.figures import amount, count, ratio, share
from pipeline.spec.features import HashTable, HistoryFeature, IdFeature, VocabTable
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec
from pipeline.statistics import Statistics

NOTHING = "–"


@dataclass(frozen=True)
class FigureTable:
    """A table of figures: its headings, the first for the names of the lines, and the figures of each line."""

    headings: list[str]
    lines: dict[str, list[str]]


def _figure(value: float | None, form: Callable[[float], str], warned: Callable[[float], bool] | None = None) -> str:
    """A figure as text, bold if the report warns of it."""
    if value is None:
        return NOTHING
    return Markup("<b>{}</b>").format(form(value)) if warned and warned(value) else form(value)


def days(spec: Spec, statistics: Statistics) -> FigureTable:
    return FigureTable(
        ["day", "split", "rows", *spec.scenes],
        {
            day.date: [day.split, count(day.rows), *(count(day.scenes[scene].rows) for scene in spec.scenes)]
            for day in statistics.days
        },
    )


def labels(spec: Spec, summary: Summary) -> FigureTable:
    """Rows and mean label of every objective in every scene that learns it."""
    lines = {}
    for scene, objective, _ in spec.terms:
        binary = isinstance(spec.objectives[objective], BinaryObjective)
        found = [summary.totals[split].labels.get(scene, {}).get(objective) for split in SPLITS]
        lines[f"{objective} in {scene}"] = [
            *(count(label.rows) if label else "0" for label in found),
            *(_figure(label.mean if label else None, share if binary else amount) for label in found),
        ]
    return FigureTable(["objective", *(f"rows, {s}" for s in SPLITS), *(f"mean, {s}" for s in SPLITS)], lines)


def features(spec: Spec, summary: Summary) -> FigureTable:
    """How much of each feature is missing, how much it drifts, and the label that it tells most about."""
    lines = {}
    for name, feature in spec.features.items():
        areas = {objective: found[name] for objective, found in summary.separations.items()}
        best = max(areas, key=lambda objective: areas[objective], default=None)
        lines[name] = [
            feature.kind,
            *(_figure(summary.totals[split].missing_share(name), share) for split in SPLITS),
            _figure(summary.drift.get(name), lambda psi: f"{psi:.3f}", lambda psi: psi > HIGH_PSI),
            _figure(areas[best] if best else None, ratio, lambda area: area >= LEAK_AUC),
            best or NOTHING,
        ]
    return FigureTable(
        ["feature", "kind", *(f"missing, {s}" for s in SPLITS), "PSI", "best AUC", "of the label"], lines
    )


def coverage(spec: Spec, summary: Summary) -> FigureTable:
    """How many ids of each split are outside the vocabulary, by feature."""
    lines = {}
    for name, feature in spec.sparse_features.items():
        if isinstance(spec.tables[feature.table], VocabTable):
            lines[name] = [feature.table]
            for split in SPLITS:
                totals = summary.totals[split]
                warned = (lambda outside: outside > HIGH_OUTSIDE) if split == "test" else None
                lines[name] += [count(totals.ids[name]), _figure(totals.outside_share(name), share, warned)]
    return FigureTable(["feature", "vocabulary", *(h for s in SPLITS for h in (f"ids, {s}", "outside"))], lines)


def table_sizes(manifest: Manifest, statistics: Statistics) -> FigureTable:
    """The rows and the different ids of each embedding table; of a hash table also how many ids may share a row."""
    lines = {}
    for name, table in manifest.spec.tables.items():
        rows, distinct = manifest.learned.table_rows[name], statistics.distinct.get(name)
        shared = sharing_ids(distinct, table.rows) if isinstance(table, HashTable) and distinct is not None else None
        lines[name] = [table.encode, count(rows), _figure(distinct, count), _figure(shared, share)]
    return FigureTable(["table", "encoding", "rows", "different ids", "share a row"], lines)


def sharing_ids(distinct: int, rows: int) -> float:
    """The expected share of `distinct` ids that share a row with another, if the hash spreads them evenly.

    1 - (1 - 1/m)^(n - 1) with n ids and m rows; row 0 is left out.
    """
    return float(1 - (1 - 1 / (rows - 1)) ** max(distinct - 1, 0))


def lengths(spec: Spec, summary: Summary) -> FigureTable:
    """How long lists and histories are in the training and the test split."""
    lines = {}
    for name, feature in spec.sparse_features.items():
        if not isinstance(feature, IdFeature):
            most = feature.last if isinstance(feature, HistoryFeature) else feature.max_length
            lines[name] = [count(most)]
            for split in ("train", "test"):
                lines[name] += _length_figures(summary.totals[split].lengths.get(name, {}), most)
    columns = [heading for s in ("train", "test") for heading in (f"mean, {s}", "empty", "full")]
    return FigureTable(["list", "at most", *columns], lines)


def _length_figures(rows: Mapping[int, int], most: int) -> list[str]:
    total = sum(rows.values())
    if not total:
        return [NOTHING] * 3
    mean = sum(length * n for length, n in rows.items()) / total
    return [amount(mean), share(rows.get(0, 0) / total), share(rows.get(most, 0) / total)]


def raw_rows(manifest: Manifest) -> FigureTable:
    return FigureTable(
        ["raw table", "read", "kept", "duplicates", "rejected"],
        {
            name: [count(n.read), count(n.kept), count(n.duplicates), count(sum(n.rejected.values()))]
            for name, n in manifest.raw.items()
        },
    )


def rejections(manifest: Manifest) -> FigureTable:
    """The rejected rows by table and reason, most first."""
    reasons = [(name, reason, n) for name, raw in manifest.raw.items() for reason, n in raw.rejected.items()]
    return FigureTable(
        ["rejected because", "rows"],
        {f"{name}: {reason}": [count(n)] for name, reason, n in sorted(reasons, key=lambda found: -found[2])},
    )


def events(manifest: Manifest) -> FigureTable:
    """What became of the events."""
    lines = {}
    for name, n in manifest.events.items():
        fates = (n.attributed, n.without_impression, n.outside_window)
        lines[name] = [f"{count(fate)} ({share(fate / sum(fates))})" if sum(fates) else "0" for fate in fates]
    return FigureTable(["event", "attributed", "without impression", "outside window"], lines)


def impressions(manifest: Manifest) -> FigureTable:
    """Impressions that the spec's filter left out, and those without a profile."""
    kept = manifest.raw["impression"].kept
    counts = {f"without {name} profile": n for name, n in manifest.without_profile.items()}
    counts = {"left out by the filter": manifest.filtered, **counts}
    return FigureTable(
        ["impressions", "rows"],
        {name: [f"{count(n)} ({share(n / kept)})" if kept else "0"] for name, n in counts.items()},
    )
