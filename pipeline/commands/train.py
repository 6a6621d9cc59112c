"""Trains a model on a sample store.

torchrun --nproc-per-node 2 scripts/train.py --spec feature_specs/short_video.yaml --samples demo/samples --out demo/run
"""

from typing import Annotated

import tyro

from pipeline.training.config import TrainConfig
from pipeline.training.processes import is_first_rank
from pipeline.training.train import plan_tables, train


def main(config: Annotated[TrainConfig, tyro.conf.arg(name="")]) -> None:
    """Trains a multi-task ranking model on a sample store, with a loss weight per scene and objective.

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
