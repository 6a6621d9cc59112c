"""Warnings: known traps of the data, in plain words, and what to do about them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data_report.summary import Summary
from pipeline.data_report.totals import SPLITS, Totals
from pipeline.errors import StrataError
from pipeline.manifest import LabelStatistics, Manifest
from pipeline.page.figures import amount, count, ratio, share
from pipeline.spec.features import HashTable, HistoryFeature, IdFeature, VocabTable
from pipeline.spec.spec import Spec
from pipeline.statistics import Statistics

# Predictions of behaviour seldom reach an AUC of 0.9, and a single feature does not come near.
LEAK_AUC = 0.99
LEAK = "possible leak"
SHOWN = 3  # leaks in an error
# Two rows per id: too few to learn a useful embedding, but enough to memorise the labels.
UNIQUE_SHARE = 0.5
# The customary limit above which a distribution counts as another one (Siddiqi 2006).
HIGH_PSI = 0.25
# With every fifth id outside the vocabulary, what the model has learned of ids helps little.
HIGH_OUTSIDE = 0.2


@dataclass(frozen=True)
class Finding:
    """One warning. `trap` is the kind of trap, and `fix` is the same for all of a kind."""

    trap: str
    what: str
    fix: str


def find_traps(manifest: Manifest, statistics: Statistics, summary: Summary) -> list[Finding]:
    """All warnings, the worst kind first; none for data without a known trap."""
    spec = manifest.spec
    return [
        *_files_in_quarantine(manifest),
        *_leaks(summary),
        *_constant_labels(summary),
        *_nearly_unique_ids(spec, statistics, summary),
        *_abnormal_days(summary),
        *_drift(summary),
        *_unseen_ids(spec, summary),
    ]


def require_no_leak(findings: list[Finding], store: Path) -> None:
    """Raises StrataError if a feature alone tells a label. It names the first such features."""
    leaks = [finding.what for finding in findings if finding.trap == LEAK]
    if leaks:
        raise StrataError(
            f"features may repeat an outcome: {'; '.join(leaks[:SHOWN])}",
            where=store,
            fix="take out those that are not known at the impression",
        )


def _files_in_quarantine(manifest: Manifest) -> Iterator[Finding]:
    for bad in manifest.quarantine:
        yield Finding(
            "file in quarantine",
            f"{bad.file} of table {bad.table}: {bad.reason}",
            "None of its rows was used: labels and counters may be too low. Deliver it again and build again.",
        )


def _leaks(summary: Summary) -> Iterator[Finding]:
    for objective, areas in summary.separations.items():
        for feature, area in areas.items():
            if area >= LEAK_AUC:
                yield Finding(
                    LEAK,
                    f"{feature} alone separates the label of {objective}: AUC {ratio(area)}",
                    "Look at its source: was it known before the impression? No feature may be made of the label, of "
                    "an outcome of the same impression, or of a counter that includes its own day.",
                )


def _constant_labels(summary: Summary) -> Iterator[Finding]:
    for split in SPLITS:
        for scene, labels in summary.totals[split].labels.items():
            for objective, label in labels.items():
                if label.min == label.max and summary.totals[split].rows:
                    yield Finding(
                        "constant label",
                        _constant(objective, scene, split, label),
                        "Nothing can be learned from it, nor measured on it. Look at the label's expression, at `where`"
                        " and at the logs of its event, or take the objective out of the scene's weights.",
                    )


def _constant(objective: str, scene: str, split: str, label: LabelStatistics) -> str:
    if label.mean is None:
        return f"{objective} has no row in scene {scene} of the {split} split"
    return f"{objective} is {amount(label.mean)} in all {count(label.rows)} rows of scene {scene} in the {split} split"


def _nearly_unique_ids(spec: Spec, statistics: Statistics, summary: Summary) -> Iterator[Finding]:
    for name, table in spec.tables.items():
        values = sum(ids_of_table(spec, name, totals) for totals in summary.totals.values())
        if isinstance(table, HashTable | VocabTable) and statistics.distinct[name] > UNIQUE_SHARE * values:
            features = [feature for feature, declared in spec.sparse_features.items() if declared.table == name]
            yield Finding(
                "nearly unique id",
                f"{', '.join(features)}: {count(statistics.distinct[name])} different ids in {count(values)} values",
                "The model memorises such an id, which says nothing about the next day. Leave it out, use a coarser "
                "one, or raise the vocabulary's min_count.",
            )


def ids_of_table(spec: Spec, table: str, totals: Totals) -> int:
    """How many values the features of a table have. Histories repeat values, so they count only if no other does."""
    features = {name: feature for name, feature in spec.sparse_features.items() if feature.table == table}
    shown = {name: f for name, f in features.items() if not isinstance(f, HistoryFeature)} or features
    return sum(
        totals.rows - totals.missing[name] if isinstance(feature, IdFeature) else totals.elements(name)
        for name, feature in shown.items()
    )


def _abnormal_days(summary: Summary) -> Iterator[Finding]:
    for day, of_median in summary.abnormal_days.items():
        yield Finding(
            "day with abnormal volume",
            f"{day} has {share(of_median)} of the rows of the median day" if of_median else f"{day} has no rows",
            "Were logs lost, written twice, or cut off in the middle of the day? If so, deliver the day again and "
            "build again, or leave it out.",
        )


def _drift(summary: Summary) -> Iterator[Finding]:
    for feature, psi in sorted(summary.drift.items(), key=lambda found: -found[1]):
        if psi > HIGH_PSI:
            yield Finding(
                "drift",
                f"{feature} has another distribution in the test split than in training: PSI {psi:.3f}",
                "Look for a change in its source. Counters and histories also fill up over the first days of a log: "
                "begin the training split later. If the change is real, train on recent days, or use coarser values.",
            )


def _unseen_ids(spec: Spec, summary: Summary) -> Iterator[Finding]:
    for feature in summary.totals["test"].ids:
        outside = summary.totals["test"].outside_share(feature)
        if outside is not None and outside > HIGH_OUTSIDE:
            yield Finding(
                "ids outside the vocabulary",
                f"{feature}: {share(outside)} of the ids of the test split have no row in the table "
                f"{spec.sparse_features[feature].table}",
                "The model cannot tell them apart. Lower min_count, train on more or later days, encode by hash, or "
                "give the model features that new ids have as well.",
            )
