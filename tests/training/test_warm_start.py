"""Going on from an earlier run on new days, with vocabularies that have grown and are in another order."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import tyro

from models.ranker import table_weight
from pipeline.errors import StrataError
from pipeline.manifest import MANIFEST, Manifest
from pipeline.training.config import TrainConfig
from pipeline.training.run_folder import load_encoding
from pipeline.training.saving.checkpoints import best_checkpoint, read_progress
from pipeline.training.saving.tensor_files import StoredTensors, TensorShard, write_tensors
from pipeline.training.train import train
from pipeline.training.warm_start import fill_table
from tests.training.altered import manifest_content

Arguments = Callable[..., list[str]]
NEW = [-1, -2, -3]
STILL = "--loop.batch-size 100000 --dense.learning-rate 1e-30 --tables.learning-rate 1e-30 --schedule.decay none"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, arguments: Arguments, samples: Path, manifest: Manifest) -> Path:
    """A run on all but the last training day."""
    store = tmp_path_factory.mktemp("earlier") / "samples"
    content = manifest_content(samples)
    last = manifest.days("train")[-1]
    content["files"] = [file for file in content["files"] if file["split"] != "train" or file["date"] < last]
    shutil.copytree(samples, store, symlinks=True)
    (store / MANIFEST).write_text(json.dumps(content))
    out = store.parent / "run"
    train(tyro.cli(TrainConfig, args=arguments(out, f"--samples {store}")))
    shutil.rmtree(store)  # the run needs it no longer
    return out


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory, samples: Path, manifest: Manifest) -> Path:
    """The samples of all days, in which the vocabulary of authors is turned around and has new values in front."""
    store = tmp_path_factory.mktemp("later") / "samples"
    shutil.copytree(samples, store, symlinks=True)
    path = store / manifest.learned.vocabularies["author"].path
    before = pq.read_table(path)
    values = [*NEW, *before["value"].to_pylist()[::-1]]
    index = np.arange(1, len(values) + 1)
    pq.write_table(
        pa.table({"value": values, "index": index, "count": np.ones(len(values), int)}).cast(before.schema), path
    )
    content = manifest_content(samples)
    content["learned"]["table_rows"]["author"] += len(NEW)
    content["learned"]["vocabularies"]["author"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (store / MANIFEST).write_text(json.dumps(content))
    return store


def tensors(run: Path) -> dict[str, torch.Tensor]:
    with StoredTensors(best_checkpoint(run)) as stored:
        return {name: stored.read(name) for name in stored.shapes}


def test_rows_go_where_their_values_went_and_only_new_days_are_trained_on(
    tmp_path: Path,
    arguments: Arguments,
    earlier: Path,
    later: Path,
    samples: Path,
    manifest: Manifest,
    capfd: pytest.CaptureFixture[str],
):
    columns = "--tables.overrides author column_wise --tables.column-width 4"
    words = arguments(tmp_path / "run", f"--samples {later} --init-from {earlier} {STILL} {columns}")
    train(tyro.cli(TrainConfig, args=words))
    assert (
        f"initialised from {best_checkpoint(earlier)}; {len(NEW)} rows of its tables are new" in capfd.readouterr().err
    )
    before, after = tensors(earlier), tensors(tmp_path / "run")
    assert after.keys() == before.keys()
    for prefix, shards in (("model.", 1), ("optimisers.tables.", 4)):
        was = before[prefix + table_weight("author")]
        for now in after[prefix + table_weight("author")].chunk(shards):
            assert torch.equal(now[0], was[0])  # of authors outside the vocabulary
            kept = torch.flip(now[1 + len(NEW) :], [0])
            torch.testing.assert_close(kept, was[1:], rtol=0, atol=1e-4 if prefix == "optimisers.tables." else 0)
    fresh = after["model." + table_weight("author")][1 : 1 + len(NEW)]
    assert (fresh != 0).all()  # initialised
    assert fresh.abs().max() < 0.5
    others = [name for name in before if name.startswith("model.") and "author" not in name]
    assert len(others) > 20
    assert all(torch.equal(before[name], after[name]) for name in others)
    whole = [name for name in before if name.startswith("optimisers.tables.") and "author" not in name]
    assert len(whole) > 5
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-4) for name in whole)
    days = manifest.days("train")
    assert load_encoding(tmp_path / "run").manifest.days("train") == days[-1:]
    assert load_encoding(tmp_path / "run").manifest.trained_before == tuple(days[:-1])
    assert read_progress(best_checkpoint(tmp_path / "run")).step == 1
    assert load_encoding(earlier).manifest.days("train") == days[:-1]
    # Training moves on from there.
    words = arguments(tmp_path / "moved", f"--samples {later} --init-from {best_checkpoint(earlier)} --since {days[0]}")
    train(tyro.cli(TrainConfig, args=words))
    assert load_encoding(tmp_path / "moved").manifest.days("train")[0] == days[0]


def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: Arguments, earlier: Path, later: Path):
    def refused(options: str) -> str:
        with pytest.raises(StrataError) as error:
            train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", f"--init-from {earlier} {options}")))
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert refused("--model.head mmoe").startswith(f"{earlier}: was trained with another --model")
    assert "has no training rows of 2100-01-01 or later" in refused("--since 2100-01-01")
    other = shutil.copytree(earlier, tmp_path / "other")
    (other / "vocabularies" / "author.parquet").unlink()
    assert refused(f"--init-from {other} --samples {later}").startswith(
        f"{other}/vocabularies/author.parquet: cannot be read ("
    )
    file = next(best_checkpoint(other).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged" in refused(f"--init-from {other}")


def test_a_row_of_quantiles_follows_the_middle_of_its_interval(
    tmp_path: Path, arguments: Arguments, earlier: Path, samples: Path
):
    """The lowest boundary is gone, and a new one stands just below the highest."""
    store = shutil.copytree(samples, tmp_path / "samples", symlinks=True)
    content = manifest_content(samples)
    before = content["learned"]["boundaries"]["duration"]
    now = [*before[1:-1], before[-1] - (before[-1] - before[-2]) / 8, before[-1]]
    content["learned"]["boundaries"]["duration"] = now
    (store / MANIFEST).write_text(json.dumps(content))
    words = arguments(tmp_path / "run", f"--samples {store} --init-from {earlier} {STILL}")
    train(tyro.cli(TrainConfig, args=words))
    weight = "model." + table_weight("duration")
    rows, rows_before = tensors(tmp_path / "run")[weight], tensors(earlier)[weight]
    # Interval 1 ends at a boundary that was the second lowest. Both parts of a cut interval start from the whole.
    last = len(before)
    expected = [0, 1, *range(3, last + 1), last, last + 1]
    assert torch.equal(rows[: last + 2], rows_before[expected])


class Watched(StoredTensors):
    """Knows the largest box that was read."""

    largest = 0

    def read(self, name: str, offsets: tuple[int, ...] = (), sizes: tuple[int, ...] = ()) -> torch.Tensor:
        box = super().read(name, offsets, sizes)
        self.largest = max(self.largest, len(box))
        return box


@pytest.mark.parametrize("block_rows", [1, 7, 100, 10_000])
def test_a_table_is_read_by_blocks_and_each_row_goes_where_its_value_went(tmp_path: Path, block_rows: int):
    """1,000 rows in three files, of which one half has its columns apart; 200 go and 300 come.

    They are taken by two ranks: one with the rows up to 400, one with the others, in parts of two and four columns.
    """
    generator = torch.Generator().manual_seed(0)
    weight, sums = torch.randn(1000, 6, generator=generator), torch.rand(2, 1000, generator=generator)
    files = {
        "a": {"model.w@0,0": weight[:500], "optimisers.tables.w@0": sums[0]},
        "b": {"model.w@500,0": weight[500:, :4].contiguous(), "optimisers.tables.w@1000": sums[1]},
        "c": {"model.w@500,4": weight[500:, 4:].contiguous()},
    }
    for name, tensors in files.items():
        write_tensors(tmp_path / f"{name}.safetensors", tensors)
    origins = torch.cat([torch.randperm(1000, generator=generator)[:800], torch.full((300,), -1)])
    origins = origins[torch.randperm(1100, generator=generator)]
    new_weight, new_sums = torch.full((1100, 6), 5.0, dtype=torch.float16), torch.zeros(2200)
    columns = {0: new_weight[400:, :2], 2: new_weight[400:, 2:]}
    first_rank = [TensorShard("model.w", (1100, 6), (0, 0), new_weight[:400], False)]
    first_sums = [TensorShard("w", (2200,), (0,), new_sums[:400], False)]
    other_rank = [TensorShard("model.w", (1100, 6), (400, first), part, False) for first, part in columns.items()]
    other_sums = [TensorShard("w", (2200,), (first,), new_sums[first : first + 700], False) for first in (400, 1500)]
    with Watched(tmp_path) as stored:
        fill_table(stored, first_rank, first_sums, origins, block_rows)
        fill_table(stored, other_rank, other_sums, origins, block_rows)
        assert 1 <= stored.largest <= block_rows
    assert torch.equal(new_sums[400:1100], new_sums[1500:])  # of either part of the columns
    for row, origin in enumerate(origins.tolist()):
        expected = (weight[origin], sums[:, origin].mean()) if origin >= 0 else (torch.full((6,), 5.0), torch.zeros(()))
        assert torch.equal(new_weight[row], expected[0].half())
        torch.testing.assert_close(new_sums[row], expected[1])
