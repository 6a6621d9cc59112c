"""Everything that a run can be told: one tree, saved as `config.json`, each leaf a flag of scripts/train.py."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from models.config import ModelConfig
from pipeline.atomic import replace_file
from pipeline.errors import StrataError
from pipeline.json_files import load_json
from pipeline.storage import Folder
from pipeline.training.optimisers import DenseConfig, ScheduleConfig
from pipeline.training.tables.config import TablesConfig

CONFIG = "config.json"


class LoopConfig(BaseModel):
    """How long to train, on what batches, and when to look at the validation split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 2
    """Times that training goes through the training split, at most."""
    batch_size: PositiveInt = 1024
    """Rows of a global batch, all ranks together."""
    shuffle_rows: PositiveInt = 262_144
    """Rows of the buffer that rows are shuffled in, all ranks together; twice as many are held in memory."""
    seed: int = Field(default=0, ge=0)
    """Of the order of the rows, of the initial weights and of dropout."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between validations, each followed by a checkpoint; 0 is once per epoch."""
    patience: int = Field(default=2, ge=0)
    """Validations without a lower loss after which training stops early; 0 never stops."""
    bad_steps: PositiveInt = 10
    """Steps in a row with a loss or gradient that is not finite after which training stops; each is skipped."""
    log_every: PositiveInt = 50
    """Steps between lines of metrics.jsonl."""


class CheckpointConfig(BaseModel):
    """How often the run is saved, and how much of it is kept. There is a checkpoint after each validation anyway."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(default=1000, ge=0)
    """Steps between checkpoints besides those; 0 is none."""
    keep: PositiveInt = 2
    """Newest checkpoints that are kept, besides the one with the lowest validation loss."""


class TrainConfig(BaseModel):
    """Trains a multi-task ranking model on a sample store, with a loss weight per scene and objective."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: Path
    """The spec (YAML) that the samples were built with."""
    samples: Path
    """The sample store made by scripts/build_samples.py."""
    out: Path
    """The run's folder: config.json, checkpoints/, metrics.jsonl, tensorboard/."""
    init_from: Path | None = None
    """An earlier run, or one of its checkpoints, to start from: its rows go where their values went in vocabularies."""
    since: date | None = None
    """First day of the training rows (YYYY-MM-DD); by default all, or after --init-from, the days that are new."""
    resume: bool = False
    """Go on from the newest checkpoint in --out, if there is one."""
    plan: bool = False
    """Print where the embedding tables would go, how much memory they would take and why, and stop."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes CUDA where each process on the machine gets a device of its own."""
    loop: LoopConfig = LoopConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    model: ModelConfig = ModelConfig()
    tables: TablesConfig = TablesConfig()
    dense: DenseConfig = DenseConfig()
    schedule: ScheduleConfig = ScheduleConfig()

    def save(self) -> None:
        """Paths are saved in full, so that the run can be evaluated from any folder."""
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
