"""Real ranks with shares of different size end together, and every row counts once."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from pipeline.columns import WEIGHT, mask_column, scene_column
from pipeline.manifest import load_manifest
from tests.training.altered import altered

ROWS = 1009  # of the first file; a prime, so that neither batches nor ranks divide it


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_row_counts_once_and_all_ranks_end(
    tmp_path: Path, arguments: Callable[..., list[str]], train_all, samples: Path, ranks: int
):
    """Row groups of one size, of another, and a last one of a few rows; batches that divide nothing."""
    store = altered(samples, tmp_path / "samples", lambda table: table.slice(0, ROWS), files=1)
    run = tmp_path / "run"
    train_all(ranks, [arguments(run, f"--samples {store} --loop.batch-size 501 --loop.epochs 2 --loop.patience 0")])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    manifest = load_manifest(store)
    spec = manifest.spec
    files = [store / file.path for file in manifest.files if file.split == "train"]
    rows = ds.dataset(files, format="parquet").to_table()
    assert rows.num_rows % ranks
    assert rows.num_rows % 501
    for name in spec.objectives:
        expected = 0.0
        for scene, content in spec.scenes.items():
            if name in content.weights:
                learned = pc.and_(rows[mask_column(name)], rows[scene_column(scene)])
                expected += pc.sum(rows.filter(learned)[WEIGHT]).as_py()
        for epoch in range(2):
            seen = [line["weights"][name] for line in lines if line["split"] == "train" and line["epoch"] == epoch]
            assert len(seen) == -(-rows.num_rows // 501)
            assert sum(seen) == pytest.approx(expected, rel=1e-6)
