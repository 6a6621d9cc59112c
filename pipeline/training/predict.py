"""Predictions of a trained model for a split, stored as Parquet for the evaluation.

Runs in one process: a checkpoint can be read whatever the ranks and the sharding that it was written with.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from models.losses import Objectives
from models.ranker import Ranker
from pipeline.batches.batch import Batch, model_columns, to_batch
from pipeline.batches.row_groups import stored_tables
from pipeline.columns import (
    SAMPLE_ID,
    TIME,
    USER,
    baseline_column,
    label_column,
    mask_column,
    prediction_column,
    scene_column,
)
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName, load_manifest
from pipeline.spec.objectives import RegressionObjective
from pipeline.training.config import load_config
from pipeline.training.processes import quiet_libraries
from pipeline.training.saving.checkpoints import Progress, best_checkpoint, check, read_progress
from pipeline.training.saving.tensor_files import load_state

ROWS_PER_BATCH = 8192
FINGERPRINT = b"strata.fingerprint"  # of the spec, in the Parquet files' metadata


def predict(run: Path, samples: Path, split: SplitName, out: Path) -> Progress:
    """Writes a row per sample of the split to the folder `out`, from the checkpoint with the lowest validation loss.

    Columns: sample_id, user_id, time_ms, the scenes, label, mask and prediction of every objective, and for a
    regression with `baseline_by` its baseline. Returns where the checkpoint stands. Raises StrataError if `run` is no
    run, `samples` no store, the model was trained on other samples, or the checkpoint is damaged: a worse one is not
    taken instead.
    """
    config = load_config(run)
    manifest = load_manifest(samples)
    if not manifest.rows(split):
        raise StrataError(f"has no rows of the {split} split", where=samples, fix="evaluate another split")
    checkpoint = best_checkpoint(run)
    progress = read_progress(checkpoint)
    if progress.encoding != manifest.encoding():
        raise StrataError(
            "was trained on other samples, or with another spec",
            where=run,
            fix=f"pass the samples that it was trained on ({config.samples})",
        )
    quiet_libraries()
    ranker = Ranker(manifest.spec, manifest.learned.table_rows, config.model, torch.device("cpu"))
    check(checkpoint)
    load_state(checkpoint, {"model": ranker.state_dict()})
    ranker.eval()
    out.mkdir()
    writer = None
    for rows in _predicted(ranker, manifest, samples, split):
        if writer is None:
            schema = rows.schema.with_metadata({FINGERPRINT: manifest.fingerprint.encode()})
            writer = pq.ParquetWriter(out / "part-0000.parquet", schema)
        writer.write_table(rows)
    assert writer is not None, "the split has rows"
    writer.close()
    return progress


@torch.inference_mode()
def _predicted(ranker: Ranker, manifest: Manifest, samples: Path, split: SplitName) -> Iterator[pa.Table]:
    spec = manifest.spec
    objectives = Objectives(spec, ranker.layout)
    kept = [SAMPLE_ID, USER, TIME, *map(scene_column, spec.scenes)]
    kept += [column(name) for name in spec.objectives for column in (label_column, mask_column)]
    columns = list(dict.fromkeys([*kept, *model_columns(spec)]))
    with tqdm(total=manifest.rows(split), unit="row", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        for rows in stored_tables(samples, manifest, split, columns, ROWS_PER_BATCH):
            batch = to_batch(rows, spec)
            predictions = objectives.predict(ranker(batch.sparse, batch.dense), batch.scenes)
            yield _append(rows.select(kept), batch, predictions, manifest)
            bar.update(rows.num_rows)


def _append(rows: pa.Table, batch: Batch, predictions: Tensor, manifest: Manifest) -> pa.Table:
    """Adds the predictions [B, O] and the baselines, which are looked up by the feature that they depend on."""
    for at, (name, objective) in enumerate(manifest.spec.objectives.items()):
        rows = rows.append_column(prediction_column(name), pa.array(predictions[:, at].numpy()))
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            medians = np.array(manifest.learned.baselines[name], np.float32)
            index = batch.sparse[objective.baseline_by].values().numpy()
            rows = rows.append_column(baseline_column(name), pa.array(medians[index]))
    return rows
