"""Trains a model on a sample store."""

from typing import Annotated

import tyro

from pipeline.commands.command_line import is_first_rank
from pipeline.training.config import TrainConfig
from pipeline.training.train import plan_tables, train

EXAMPLE = "--spec feature_specs/short_video.yaml --samples demo/samples --out demo/run"


def main(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
    """Trains a multi-task ranking model on a sample store.

    It reads the spec and the store, and makes a run: a folder with `config.json`, `manifest.json`, `vocabularies/`,
    `checkpoints/`, `metrics.jsonl` and `tensorboard/`.

    The command runs one process. For N processes, put `.venv/bin/torchrun --nproc-per-node N` before `scripts/train.py`
    or `.venv/bin/strata train`, in place of the Python.

    Args:
        config: What to train, and how.
    """
    if config.plan:
        text = plan_tables(config)
        if is_first_rank():
            print(text)
        return
    progress = train(config)
    if is_first_rank():
        print(f"{config.out}: {progress.step} steps, lowest validation loss {progress.best_loss:.4f}")
