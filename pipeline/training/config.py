"""All options of a run, as one tree. A run saves it as `config.json`; each leaf is an option of `strata train`."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from models.config import ModelConfig
from pipeline.atomic import replace_file
from pipeline.errors import StrataError
from pipeline.json_files import load_json
from pipeline.storage import Folder
from pipeline.training.stepping.optimisers import DenseConfig, ScheduleConfig
from pipeline.training.tables.config import TablesConfig

CONFIG = "config.json"


class LoopConfig(BaseModel):
    """How long to train, on which batches, and when to validate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 2
    """Passes over the training split, at most."""
    batch_size: PositiveInt = 1024
    """Rows of a global batch, over all ranks."""
    shuffle_rows: PositiveInt = 262_144
    """Rows of the shuffle buffer, over all ranks. Memory holds two buffers."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of rows, the initial weights and dropout."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between validations. A checkpoint follows each. 0 validates once per epoch."""
    patience: int = Field(default=2, ge=0)
    """Validations in a row without a lower loss that end training. 0 never ends it early."""
    bad_steps: PositiveInt = 10
    """Skipped steps in a row that end training. A step is skipped if its loss or gradient is not finite."""
    log_every: PositiveInt = 50
    """Steps between lines of metrics.jsonl."""


class CheckpointConfig(BaseModel):
    """How often to save a checkpoint, besides after each validation, and how many to keep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(default=1000, ge=0)
    """Steps between checkpoints. 0 saves only after validations."""
    keep: PositiveInt = 2
    """Newest checkpoints to keep. The one with the lowest validation loss is kept as well."""


class TrainConfig(BaseModel):
    """Everything that a training run is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: Path
    """The spec (YAML) of the samples. Its weights, losses, dimensions and pooling may have changed since."""
    samples: Path
    """The sample store, as `build` made it."""
    out: Path
    """The new folder for the run, or with --resume the folder of a run."""
    init_from: Path | None = None
    """An earlier run, or one of its checkpoints, to start from. Rows of tables follow their values."""
    since: date | None = None
    """First day of the training rows. By default the first of all, or with --init-from the first new one."""
    resume: bool = False
    """Go on from the newest checkpoint in --out. Without one, the run begins anew."""
    plan: bool = False
    """Print the plan of the embedding tables (place, memory, reason), and stop."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute. auto takes CUDA if each process of this machine can have a device of its own."""
    loop: LoopConfig = LoopConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    model: ModelConfig = ModelConfig()
    tables: TablesConfig = TablesConfig()
    dense: DenseConfig = DenseConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    def save(self) -> None:
        """Writes `config.json`. Its paths are absolute, so that the run can be evaluated from any folder."""
        paths = {
            "spec": self.spec.resolve(),
            "samples": self.samples.resolve(),
            "out": self.out.resolve(),
            "init_from": self.init_from and self.init_from.resolve(),
        }
        replace_file(self.out / CONFIG, self.model_copy(update=paths).model_dump_json(indent=1).encode())


def load_config(run: Path) -> TrainConfig:
    """The configuration of an earlier run. Raises StrataError if the folder is no run."""
    path = run / CONFIG
    if not path.is_file():
        raise StrataError(f"is no run (it has no {CONFIG})", where=run, fix="pass a folder made by scripts/train.py")
    return load_json(TrainConfig, Folder.at(run), CONFIG, what="a configuration", fix="train the model again")


def same_samples(configs: Mapping[str, TrainConfig]) -> Path:
    """The samples that all runs were trained on. Raises StrataError if they were not trained on the same."""
    folders = {name: config.samples for name, config in configs.items()}
    if len(set(folders.values())) > 1:
        named = ", ".join(f"{name}: {folder}" for name, folder in folders.items())
        raise StrataError(
            f"the runs were trained on samples in different folders ({named})",
            where="--samples",
            fix="pass the samples to compare them on",
        )
    return next(iter(folders.values()))
