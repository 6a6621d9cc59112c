"""The traps of the data, in plain words and with what to do about them."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.data_report.measures import Measures
from pipeline.data_report.totals import SPLITS, Totals
from pipeline.manifest import LabelStatistics, Manifest
from pipeline.page.figures import amount, count, ratio, share
from pipeline.spec.features import HashTable, HistoryFeature, IdFeature, VocabTable
from pipeline.spec.spec import Spec
from pipeline.statistics import Statistics

# What is predicted from behaviour seldom reaches an AUC of 0.9, let alone by one feature.
LEAK_AUC = 0.99
# Two rows per id: too few to learn an embedding from, and enough to learn the label by heart.
UNIQUE_SHARE = 0.5
# The customary limit above which a distribution counts as another one (Siddiqi 2006).
HIGH_PSI = 0.25
# Every fifth id without a row of its own: what the model has learned of ids is then of little use.
HIGH_OUTSIDE = 0.2


@dataclass(frozen=True)
class Finding:
    """One thing that was seen; `trap` is the kind of trap, and `fix` the advice for all of its kind."""

    trap: str
    what: str
    fix: str


def find_traps(manifest: Manifest, statistics: Statistics, measures: Measures) -> list[Finding]:
    """The worst kind first; empty for data without a known trap."""
    spec = manifest.spec
    return [
        *_files_in_quarantine(manifest),
        *_leaks(measures),
        *_constant_labels(measures),
        *_nearly_unique_ids(spec, statistics, measures),
        *_abnormal_days(measures),
        *_drift(measures),
        *_unseen_ids(spec, measures),
    ]


def _files_in_quarantine(manifest: Manifest) -> Iterator[Finding]:
    for bad in manifest.quarantine:
        yield Finding(
            "file in quarantine",
            f"{bad.file} of table {bad.table}: {bad.reason}",
            "None of its rows was used: labels and counters may be too low. Deliver it again and build its day anew.",
        )


def _leaks(measures: Measures) -> Iterator[Finding]:
    for objective, areas in measures.separations.items():
        for feature, area in areas.items():
            if area >= LEAK_AUC:
                yield Finding(
                    "possible leak",
                    f"{feature} alone separates the label of {objective}: AUC {ratio(area)}",
                    "Look at its source: was it known before the impression? No feature may be made of the label, of "
                    "an outcome of the same impression, or of a counter that includes its own day.",
                )


def _constant_labels(measures: Measures) -> Iterator[Finding]:
    for split in SPLITS:
        for scene, labels in measures.totals[split].labels.items():
            for objective, label in labels.items():
                if label.min == label.max and measures.totals[split].rows:
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


def _nearly_unique_ids(spec: Spec, statistics: Statistics, measures: Measures) -> Iterator[Finding]:
    for name, table in spec.tables.items():
        values = sum(ids_of_table(spec, name, totals) for totals in measures.totals.values())
        if isinstance(table, HashTable | VocabTable) and statistics.distinct[name] > UNIQUE_SHARE * values:
            features = [feature for feature, declared in spec.sparse_features.items() if declared.table == name]
            yield Finding(
                "nearly unique id",
                f"{', '.join(features)}: {count(statistics.distinct[name])} different ids in {count(values)} values",
                "Such an id is learned by heart and says nothing of the next day. Leave it out, use a coarser one, or "
                "raise the vocabulary's min_count.",
            )


def ids_of_table(spec: Spec, table: str, totals: Totals) -> int:
    """How many values the features of a table have; histories repeat them, and count only where there is no other."""
    features = {name: feature for name, feature in spec.sparse_features.items() if feature.table == table}
    shown = {name: f for name, f in features.items() if not isinstance(f, HistoryFeature)} or features
    return sum(
        totals.rows - totals.missing[name] if isinstance(feature, IdFeature) else totals.elements(name)
        for name, feature in shown.items()
    )


def _abnormal_days(measures: Measures) -> Iterator[Finding]:
    for day, of_median in measures.abnormal_days.items():
        yield Finding(
            "day with abnormal volume",
            f"{day} has {share(of_median)} of the rows of the median day" if of_median else f"{day} has no rows",
            "Were logs lost, written twice, or cut off in the middle of the day? If so, deliver the day again and "
            "build it anew, or leave it out.",
        )


def _drift(measures: Measures) -> Iterator[Finding]:
    for feature, psi in sorted(measures.drift.items(), key=lambda found: -found[1]):
        if psi > HIGH_PSI:
            yield Finding(
                "drift",
                f"{feature} is spread otherwise in the test split than in training: PSI {psi:.3f}",
                "Look for a change in its source. Counters and histories also fill up over the first days of a log: "
                "begin the training split later. What is left is real change: train on recent days, or coarsen it.",
            )


def _unseen_ids(spec: Spec, measures: Measures) -> Iterator[Finding]:
    for feature in measures.totals["test"].ids:
        outside = measures.totals["test"].outside_share(feature)
        if outside is not None and outside > HIGH_OUTSIDE:
            yield Finding(
                "ids outside the vocabulary",
                f"{feature}: {share(outside)} of the ids of the test split have no row in the table "
                f"{spec.sparse_features[feature].table}",
                "All of them look alike to the model. Lower min_count, train on more or later days, encode by hash, or "
                "give the model features that new ids have as well.",
            )
