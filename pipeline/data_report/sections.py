"""The tables of the data report, with their figures as they are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from pipeline.data_report.findings import HIGH_OUTSIDE, HIGH_PSI, LEAK_AUC
from pipeline.data_report.measures import Measures
from pipeline.data_report.totals import SPLITS
from pipeline.manifest import Manifest
from pipeline.page.figures import amount, count, ratio, share
from pipeline.spec.features import HashTable, HistoryFeature, IdFeature, VocabTable
from pipeline.spec.objectives import BinaryObjective
from pipeline.spec.spec import Spec
from pipeline.statistics import Statistics

NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """Headings, that of the lines' names first, and the figures of each line."""

    headings: list[str]
    lines: dict[str, list[str]]


def _figure(value: float | None, form: Callable[[float], str], warned: Callable[[float], bool] | None = None) -> str:
    """As it is written; bold where the report warns of it."""
    if value is None:
        return NOTHING
    return Markup("<b>{}</b>").format(form(value)) if warned and warned(value) else form(value)


def days(spec: Spec, statistics: Statistics) -> Table:
    return Table(
        ["day", "split", "rows", *spec.scenes],
        {
            day.date: [day.split, count(day.rows), *(count(day.scenes[scene].rows) for scene in spec.scenes)]
            for day in statistics.days
        },
    )


def labels(spec: Spec, measures: Measures) -> Table:
    """Rows and mean label of every objective in every scene that learns it."""
    lines = {}
    for scene, objective, _ in spec.terms:
        binary = isinstance(spec.objectives[objective], BinaryObjective)
        found = [measures.totals[split].labels.get(scene, {}).get(objective) for split in SPLITS]
        lines[f"{objective} in {scene}"] = [
            *(count(label.rows) if label else "0" for label in found),
            *(_figure(label.mean if label else None, share if binary else amount) for label in found),
        ]
    return Table(["objective", *(f"rows, {s}" for s in SPLITS), *(f"mean, {s}" for s in SPLITS)], lines)


def features(spec: Spec, measures: Measures) -> Table:
    """What is missing, what drifts, and which label a feature tells most about."""
    lines = {}
    for name, feature in spec.features.items():
        areas = {objective: found[name] for objective, found in measures.separations.items()}
        best = max(areas, key=lambda objective: areas[objective], default=None)
        lines[name] = [
            feature.kind,
            *(_figure(measures.totals[split].missing_share(name), share) for split in SPLITS),
            _figure(measures.drift.get(name), lambda psi: f"{psi:.3f}", lambda psi: psi > HIGH_PSI),
            _figure(areas[best] if best else None, ratio, lambda area: area >= LEAK_AUC),
            best or NOTHING,
        ]
    return Table(["feature", "kind", *(f"missing, {s}" for s in SPLITS), "PSI", "best AUC", "of the label"], lines)


def coverage(spec: Spec, measures: Measures) -> Table:
    """How many ids of each split have no row of their own, of the features with a vocabulary."""
    lines = {}
    for name, feature in spec.sparse_features.items():
        if isinstance(spec.tables[feature.table], VocabTable):
            lines[name] = [feature.table]
            for split in SPLITS:
                totals = measures.totals[split]
                warned = (lambda outside: outside > HIGH_OUTSIDE) if split == "test" else None
                lines[name] += [count(totals.ids[name]), _figure(totals.outside_share(name), share, warned)]
    return Table(["feature", "vocabulary", *(h for s in SPLITS for h in (f"ids, {s}", "outside"))], lines)


def embedding_tables(manifest: Manifest, statistics: Statistics) -> Table:
    """Rows against different ids; for hash tables, how many of them are expected to share a row."""
    lines = {}
    for name, table in manifest.spec.tables.items():
        rows, distinct = manifest.learned.table_rows[name], statistics.distinct.get(name)
        shared = sharing_ids(distinct, table.rows) if isinstance(table, HashTable) and distinct is not None else None
        lines[name] = [table.encode, count(rows), _figure(distinct, count), _figure(shared, share)]
    return Table(["table", "encoding", "rows", "different ids", "share a row"], lines)


def sharing_ids(distinct: int, rows: int) -> float:
    """The expected share of `distinct` ids that share a row with another, if a hash deals them evenly.

    1 - (1 - 1/m)^(n - 1) with n ids and m rows, of which the hash leaves out row 0.
    """
    return float(1 - (1 - 1 / (rows - 1)) ** max(distinct - 1, 0))


def lengths(spec: Spec, measures: Measures) -> Table:
    """How long lists and histories are in the training and the test split."""
    lines = {}
    for name, feature in spec.sparse_features.items():
        if not isinstance(feature, IdFeature):
            most = feature.last if isinstance(feature, HistoryFeature) else feature.max_length
            lines[name] = [count(most)]
            for split in ("train", "test"):
                lines[name] += _length_figures(measures.totals[split].lengths.get(name, {}), most)
    columns = [heading for s in ("train", "test") for heading in (f"mean, {s}", "empty", "full")]
    return Table(["list", "at most", *columns], lines)


def _length_figures(rows: Mapping[int, int], most: int) -> list[str]:
    total = sum(rows.values())
    if not total:
        return [NOTHING] * 3
    mean = sum(length * n for length, n in rows.items()) / total
    return [amount(mean), share(rows.get(0, 0) / total), share(rows.get(most, 0) / total)]


def raw_rows(manifest: Manifest) -> Table:
    return Table(
        ["raw table", "read", "kept", "duplicates", "rejected"],
        {
            name: [count(n.read), count(n.kept), count(n.duplicates), count(sum(n.rejected.values()))]
            for name, n in manifest.raw.items()
        },
    )


def rejections(manifest: Manifest) -> Table:
    """The rejected rows by table and reason, most first."""
    reasons = [(name, reason, n) for name, raw in manifest.raw.items() for reason, n in raw.rejected.items()]
    return Table(
        ["rejected because", "rows"],
        {f"{name}: {reason}": [count(n)] for name, reason, n in sorted(reasons, key=lambda found: -found[2])},
    )


def events(manifest: Manifest) -> Table:
    """What became of the events that were kept."""
    lines = {}
    for name, n in manifest.events.items():
        fates = (n.attributed, n.without_impression, n.outside_window)
        lines[name] = [f"{count(fate)} ({share(fate / sum(fates))})" if sum(fates) else "0" for fate in fates]
    return Table(["event", "attributed", "without impression", "outside window"], lines)


def impressions(manifest: Manifest) -> Table:
    """Impressions that the spec's filter left out, and those that a profile says nothing of."""
    kept = manifest.raw["impression"].kept
    counts = {f"without {name} profile": n for name, n in manifest.without_profile.items()}
    counts = {"left out by the filter": manifest.filtered, **counts}
    return Table(
        ["impressions", "rows"],
        {name: [f"{count(n)} ({share(n / kept)})" if kept else "0"] for name, n in counts.items()},
    )
