"""The figures behind the warnings and the page, computed once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.data_report.drift import population_stability
from pipeline.data_report.sample import read_sample
from pipeline.data_report.separation import separations
from pipeline.data_report.totals import Totals, split_totals
from pipeline.data_report.volume import abnormal_days
from pipeline.manifest import Manifest, SplitName
from pipeline.statistics import Statistics


@dataclass(frozen=True)
class Summary:
    """The figures of a store. Totals and days are exact; drift and separations come from a sample of the rows."""

    totals: dict[SplitName, Totals]
    abnormal_days: dict[str, float]
    """The rows of an abnormal day over those of the median day, by date."""
    drift: dict[str, float]
    """The PSI of each feature."""
    separations: dict[str, dict[str, float]]
    """The AUC of each feature alone against the label of each objective, by objective, then by feature."""


def summarise(store: Path, manifest: Manifest, statistics: Statistics) -> Summary:
    """Raises LocalError if a file of the store cannot be read."""
    compared: list[SplitName] = ["train", "test"]
    with ThreadPoolExecutor() as pool:
        train, test = pool.map(partial(read_sample, store, manifest), compared)
        drift = pool.submit(population_stability, manifest.spec, train, test)
        return Summary(
            totals=split_totals(statistics),
            abnormal_days=abnormal_days({day.date: day.rows for day in statistics.days}),
            separations=separations(manifest.spec, train),
            drift=drift.result(),
        )
