"""All that the warnings and the page are made of, measured once."""

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
class Measures:
    """Exact totals per split; from the sample the PSI per feature, and per objective the AUC of each feature alone.

    `abnormal_days` has the rows of a day over those of the median day.
    """

    totals: dict[SplitName, Totals]
    abnormal_days: dict[str, float]
    drift: dict[str, float]
    separations: dict[str, dict[str, float]]


def measure(store: Path, manifest: Manifest, statistics: Statistics) -> Measures:
    """Raises LocalError if a file of the store cannot be read."""
    of: list[SplitName] = ["train", "test"]
    with ThreadPoolExecutor() as pool:
        train, test = pool.map(partial(read_sample, store, manifest), of)
        drift = pool.submit(population_stability, manifest.spec, train, test)
        return Measures(
            totals=split_totals(statistics),
            abnormal_days=abnormal_days({day.date: day.rows for day in statistics.days}),
            separations=separations(manifest.spec, train),
            drift=drift.result(),
        )
