"""Predictions of a trained model for a split, stored as Parquet for the evaluation.

Runs in one process: a checkpoint can be read whatever the ranks and the sharding that it was written with.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
from pipeline.batches.mapping import Encoding, MappingCounts, SampleMapping
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
from pipeline.spec.spec import Spec
from pipeline.training.config import load_config
from pipeline.training.processes import quiet_libraries
from pipeline.training.run_folder import load_encoding, read_own_progress
from pipeline.training.saving.checkpoints import best_checkpoint, check
from pipeline.training.saving.tensor_files import load_state

ROWS_PER_BATCH = 8192
FINGERPRINT = b"strata.fingerprint"  # of the run's spec, in the Parquet files' metadata


@dataclass(frozen=True)
class Prediction:
    """What was predicted with what: `trained` is the manifest that the run keeps, `store` that of the samples."""

    step: int
    """Steps that the checkpoint had taken."""
    trained: Manifest
    store: Manifest
    split: SplitName
    counts: MappingCounts

    def facts(self) -> dict[str, str]:
        """What the head of a report says of the run, by name."""
        trained = f"{self.trained.rows('train'):,} rows\n{self.trained.period('train')}"
        return {"trained on": trained, "checkpoint": f"step {self.step:,}", **self.remarks()}

    def remarks(self) -> dict[str, str]:
        """What a reader of the figures has to know, in a line each; nothing if the run was trained on these samples."""
        found, counts = {}, self.counts
        if counts.unknown:
            found["unknown values"] = (
                f"{counts.unknown:,} of {counts.values:,} values ({counts.unknown / counts.values:.2%}) are not in the "
                "run's vocabularies"
            )
        if counts.cut_rows:
            share = counts.cut_rows / counts.rows
            found["cut intervals"] = (
                f"{counts.cut_rows:,} of {counts.rows:,} rows ({share:.2%}) have a number whose interval the run's "
                "quantiles cut"
            )
        known = {*self.trained.trained_before, *self.trained.days("train")}
        leaked = known & set(self.store.days(self.split))
        if leaked:
            rows = sum(file.rows for file in self.store.files if file.split == self.split and file.date in leaked)
            found["warning"] = (
                f"{rows:,} of {self.store.rows(self.split):,} rows are of days that the run was trained on "
                f"({', '.join(sorted(leaked))}), so its figures are too good"
            )
        chosen_by = set(self.trained.days("valid")) & set(self.store.days(self.split))
        if chosen_by and self.split != "valid":
            found["validated on"] = (
                f"{', '.join(sorted(chosen_by))} chose the best checkpoint of the run, so its figures are slightly high"
            )
        return found


def predict(run: Path, samples: Path, split: SplitName, out: Path) -> Prediction:
    """Writes a row per sample of the split to the folder `out`, from the checkpoint with the lowest validation loss.

    Columns: sample_id, user_id, time_ms, the scenes, label, mask and prediction of every objective of the run, and for
    a regression with `baseline_by` its baseline. The samples may be those that the run was trained on, or others of
    the same logs: their features are mapped to the run's encoding. Raises StrataError if `run` is no run, `samples` no
    store, the samples cannot be mapped, or the checkpoint is damaged: a worse one is not taken instead.
    """
    config = load_config(run)
    store = Encoding(samples, load_manifest(samples))
    rows = store.manifest.rows(split)
    if not rows:
        raise StrataError(f"has no rows of the {split} split", where=samples, fix="evaluate another split")
    checkpoint = best_checkpoint(run)
    own = load_encoding(run)
    progress = read_own_progress(checkpoint, own)
    mapping = SampleMapping(store, own)
    quiet_libraries()
    spec = own.manifest.spec
    ranker = Ranker(spec, own.manifest.learned.table_rows, config.model, torch.device("cpu"))
    check(checkpoint)
    load_state(checkpoint, {"model": ranker.state_dict()})
    ranker.eval()
    out.mkdir()
    writer = None
    columns = list(dict.fromkeys([*_kept_columns(spec), *model_columns(spec)]))
    with tqdm(total=rows, unit="row", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        stored = map(mapping.apply, stored_tables(samples, store.manifest, split, columns, ROWS_PER_BATCH))
        for predicted in _predicted(ranker, own.manifest, stored):
            if writer is None:
                schema = predicted.schema.with_metadata({FINGERPRINT: spec.fingerprint().encode()})
                writer = pq.ParquetWriter(out / "part-0000.parquet", schema)
            writer.write_table(predicted)
            bar.update(predicted.num_rows)
    assert writer is not None, "the split has rows"
    writer.close()
    return Prediction(progress.step, own.manifest, store.manifest, split, mapping.counts)


def _kept_columns(spec: Spec) -> list[str]:
    """The columns of the samples that are stored beside the predictions."""
    kept = [SAMPLE_ID, USER, TIME, *map(scene_column, spec.scenes)]
    return kept + [column(name) for name in spec.objectives for column in (label_column, mask_column)]


@torch.inference_mode()
def _predicted(ranker: Ranker, manifest: Manifest, stored: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows with predictions and baselines instead of features; `manifest` is the run's."""
    spec = manifest.spec
    objectives = Objectives(spec, ranker.layout)
    for rows in stored:
        batch = to_batch(rows, spec)
        predictions = objectives.predict(ranker(batch.sparse, batch.dense), batch.scenes)
        yield _append(rows.select(_kept_columns(spec)), batch, predictions, manifest)


def _append(rows: pa.Table, batch: Batch, predictions: Tensor, manifest: Manifest) -> pa.Table:
    """Adds the predictions [B, O] and the baselines, which are looked up by the feature that they depend on."""
    for at, (name, objective) in enumerate(manifest.spec.objectives.items()):
        rows = rows.append_column(prediction_column(name), pa.array(predictions[:, at].numpy()))
        if isinstance(objective, RegressionObjective) and objective.baseline_by:
            medians = np.array(manifest.learned.baselines[name], np.float32)
            index = batch.sparse[objective.baseline_by].values().numpy()
            rows = rows.append_column(baseline_column(name), pa.array(medians[index]))
    return rows
