"""Going on from an earlier run on new days, with vocabularies that have grown and are in another order."""

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

from pipeline.errors import StrataError
from pipeline.manifest import MANIFEST, Manifest
from pipeline.training.checkpoints import best_checkpoint, read_progress
from pipeline.training.chunks import StoredTensors
from pipeline.training.config import TrainConfig
from pipeline.training.train import train

Arguments = Callable[..., list[str]]
WEIGHT = "embeddings.tables.embedding_bags.{}.weight"
NEW = [-1, -2, -3]
STILL = "--loop.batch-size 100000 --dense.learning-rate 1e-30 --tables.learning-rate 1e-30 --schedule.decay none"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory, arguments: Arguments, samples: Path, manifest: Manifest) -> Path:
    """A run on all but the last training day."""
    store = tmp_path_factory.mktemp("earlier") / "samples"
    content = json.loads((samples / MANIFEST).read_text())
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
    content = json.loads((samples / MANIFEST).read_text())
    content["learned"]["table_rows"]["author"] += len(NEW)
    (store / MANIFEST).write_text(json.dumps(content))
    return store


def tensors(run: Path) -> dict[str, torch.Tensor]:
    with StoredTensors(best_checkpoint(run)) as stored:
        return {name: stored.read(name) for name in stored.shapes}


def test_rows_go_where_their_values_went_and_only_new_days_are_trained_on(
    tmp_path: Path, arguments: Arguments, earlier: Path, later: Path, samples: Path, manifest: Manifest,
    capfd: pytest.CaptureFixture[str],
):  # fmt: skip
    words = arguments(tmp_path / "run", f"--samples {later} --init-from {earlier} {STILL}")
    train(tyro.cli(TrainConfig, args=words))
    assert (
        f"initialised from {best_checkpoint(earlier)}; {len(NEW)} rows of its tables are new" in capfd.readouterr().err
    )
    before, after = tensors(earlier), tensors(tmp_path / "run")
    assert after.keys() == before.keys()
    for prefix in ("model.", "optimisers.tables."):
        was, now = (found[prefix + WEIGHT.format("author")] for found in (before, after))
        assert torch.equal(now[0], was[0])  # of authors outside the vocabulary
        kept = torch.flip(now[1 + len(NEW) :], [0])
        torch.testing.assert_close(kept, was[1:], rtol=0, atol=1e-4 if prefix == "optimisers.tables." else 0)
    fresh = after["model." + WEIGHT.format("author")][1 : 1 + len(NEW)]
    assert (fresh != 0).all()  # initialised
    assert fresh.abs().max() < 0.5
    others = [name for name in before if name.startswith("model.") and "author" not in name]
    assert len(others) > 20
    assert all(torch.equal(before[name], after[name]) for name in others)
    progress = read_progress(best_checkpoint(tmp_path / "run"))
    days = manifest.days("train")
    assert (progress.first_day, progress.last_day, progress.step) == (days[-1], days[-1], 1)
    assert read_progress(best_checkpoint(earlier)).last_day == days[-2]
    # Training moves on from there.
    words = arguments(tmp_path / "moved", f"--samples {later} --init-from {best_checkpoint(earlier)} --since {days[0]}")
    train(tyro.cli(TrainConfig, args=words))
    assert read_progress(best_checkpoint(tmp_path / "moved")).first_day == days[0]


def test_what_does_not_fit_is_refused(tmp_path: Path, arguments: Arguments, earlier: Path, samples: Path):
    def refused(options: str) -> str:
        with pytest.raises(StrataError) as error:
            train(tyro.cli(TrainConfig, args=arguments(tmp_path / "run", f"--init-from {earlier} {options}")))
        assert not (tmp_path / "run").exists()
        return str(error.value)

    assert refused("--model.head mmoe").startswith(f"{earlier}: was trained with another --model")
    assert "has no training rows of 2100-01-01 or later" in refused("--since 2100-01-01")
    other = shutil.copytree(earlier, tmp_path / "other")
    (other / "checkpoints" / "vocabularies" / "author.parquet").unlink()
    assert refused(f"--init-from {other}").startswith(f"{other}: lacks checkpoints/vocabularies/author.parquet")
    file = next(best_checkpoint(other).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged" in refused(f"--init-from {other}")
