"""The training loop: steps, validation, early stopping, checkpoints.

K is the number of loss terms. One all-reduce per step carries the K sums of the losses, the K sums of the weights
(the loss is over the global batch, whatever the number of ranks) and whether a rank was asked to stop.
"""

import math
import time
from collections.abc import Iterator
from signal import SIGTERM

import torch
import torch.distributed as dist
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from models.losses import Objectives
from pipeline.batches.batch import Batch
from pipeline.batches.prefetch import Prefetcher
from pipeline.batches.reader import BatchReader
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName
from pipeline.training.checkpoints import Progress, save_checkpoint
from pipeline.training.config import TrainConfig
from pipeline.training.interrupts import Interrupts
from pipeline.training.optimisers import Optimisers
from pipeline.training.processes import Rank
from pipeline.training.record import Record


class Loop:
    """Steps a sharded model from where `progress` stands to the end of the run."""

    def __init__(
        self,
        config: TrainConfig,
        manifest: Manifest,
        rank: Rank,
        model: DistributedModelParallel,
        objectives: Objectives,
        optimisers: Optimisers,
        progress: Progress,
    ) -> None:
        """The model and the optimisers hold what belongs to `progress`, as loaded from its checkpoint.

        Raises StrataError if a split has too few rows for the ranks.
        """
        self.config = config.loop
        self.schedule = config.schedule
        self.run_folder = config.out
        self.samples = config.samples
        self.manifest = manifest
        self.rank = rank
        self.model = model
        self.objectives = objectives
        self.optimisers = optimisers
        self.progress = progress
        self.interrupted_by = 0
        self.train_reader = self._reader("train")
        self.total_steps = self.config.epochs * self.train_reader.steps
        for reader in (self.train_reader, self._reader("valid")):
            reader.check()

    def run(self, record: Record, interrupts: Interrupts) -> None:
        """Trains until the last epoch, until patience ends, or until a signal."""
        saved_at = self.progress.step
        validate_every = self.config.validate_every or self.train_reader.steps
        for _ in self._steps(record, interrupts):
            # Before a signal is heeded, because a resumed run would leave out a validation that is due here.
            if self.progress.step % validate_every == 0 or self.progress.step == self.total_steps:
                self._validate(record)
                self._save()
                saved_at = self.progress.step
            if self.interrupted_by or self._out_of_patience():
                break
        if self.progress.step > saved_at:
            self._save()
        if self.interrupted_by:
            record.say(f"interrupted after step {self.progress.step}; a checkpoint is saved, --resume goes on from it")
        elif self._out_of_patience():
            record.say(f"stopped early: {self.config.patience} validations without a lower loss")

    def _steps(self, record: Record, interrupts: Interrupts) -> Iterator[None]:
        """All steps that are left, epoch by epoch; none if patience has ended before."""
        while self.progress.epoch < self.config.epochs and not self._out_of_patience():
            yield from self._epoch(record, interrupts)
            self.progress.epoch += 1
            self.progress.epoch_step = 0

    def _epoch(self, record: Record, interrupts: Interrupts) -> Iterator[None]:
        """The rest of an epoch, step by step."""
        batches = self._batches(self.train_reader, self.progress.epoch, self.progress.epoch_step)
        sums = torch.zeros(2 * len(self.objectives.layout.terms), device=self.rank.device)
        began, rows, waited = time.perf_counter(), 0, 0.0
        self.model.train()
        for batch in batches:
            reduced, signal = self._step(batch.to(self.rank.device), interrupts.received)
            self.interrupted_by = signal
            sums += reduced
            rows += len(batch)
            self.progress.step += 1
            self.progress.epoch_step += 1
            self.progress.valid_loss = None
            record.advance()
            if self.progress.step % self.config.log_every == 0 or self.progress.step == self.total_steps:
                seconds = time.perf_counter() - began
                loss, by_objective = self._report(sums)
                record.log(self.progress.step, "train", loss, by_objective, epoch=self.progress.epoch,
                           rate=self.schedule.factor(self.progress.step - 1, self.total_steps),
                           samples_per_s=rows * self.rank.ranks / seconds,
                           data_wait=(batches.waited_s - waited) / seconds)  # fmt: skip
                sums.zero_()
                began, rows, waited = time.perf_counter(), 0, batches.waited_s
            yield

    def _step(self, batch: Batch, signal: int) -> tuple[Tensor, int]:
        """One update; returns the global sums [2K] of losses and weights, and the signal that any rank received."""
        # Seeded by step and rank, so that dropout after a resumption is what it would have been without it.
        torch.manual_seed((self.config.seed * 1_000_003 + self.progress.step) * 1_009 + self.rank.rank)
        self.optimisers.set_rate(self.schedule.factor(self.progress.step, self.total_steps))
        self.optimisers.zero_grad()
        outputs = self.model(batch.sparse, batch.dense)
        losses, weights = self.objectives.weighted_sums(
            outputs, batch.labels, batch.masks, batch.scenes, batch.weight
        )  # fmt: skip
        reduced = torch.cat([losses.detach(), weights, losses.new_tensor([signal])])
        dist.all_reduce(reduced)
        # Gradients are averaged over the ranks, but the ranks' losses add up to the loss: hence the factor.
        loss = self.objectives.combine(losses, reduced[len(losses) : 2 * len(losses)]) * self.rank.ranks
        loss.backward()
        self.optimisers.step()
        return reduced[:-1], signal or (SIGTERM if reduced[-1].item() else 0)

    @torch.no_grad()
    def _validate(self, record: Record) -> None:
        """The loss on the validation split, and whether it is the lowest so far."""
        self.model.eval()
        sums = torch.zeros(2 * len(self.objectives.layout.terms), device=self.rank.device)
        for batch in self._batches(self._reader("valid"), epoch=0, first_step=0):
            here = batch.to(self.rank.device)
            outputs = self.model(here.sparse, here.dense)
            sums += torch.cat(self.objectives.weighted_sums(outputs, here.labels, here.masks, here.scenes, here.weight))
        dist.all_reduce(sums)
        self.model.train()
        loss, by_objective = self._report(sums)
        record.log(self.progress.step, "valid", loss, by_objective, epoch=self.progress.epoch)
        self.progress.valid_loss = loss
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_loss = loss
            self.progress.validations_without_gain = 0
        else:
            self.progress.validations_without_gain += 1

    def _report(self, sums: Tensor) -> tuple[float, dict[str, float]]:
        """The loss, and each objective's mean loss over all its rows, from global sums [2K].

        Raises StrataError if the loss is not finite.
        """
        losses, weights = sums.chunk(2)
        by_objective = {}
        for at, name in enumerate(self.manifest.spec.objectives):
            terms = [k for k, term in enumerate(self.objectives.layout.terms) if term.objective == at]
            by_objective[name] = (losses[terms].sum() / weights[terms].sum().clamp(min=1)).item()
        loss = self.objectives.combine(losses, weights).item()
        if not math.isfinite(loss):
            raise StrataError(f"the loss is {loss} at step {self.progress.step}", where=self.run_folder,
                              fix="lower --dense.learning-rate or --tables.learning-rate")  # fmt: skip
        return loss, by_objective

    def _save(self) -> None:
        state = {"model": self.model.state_dict(), "optimisers": self.optimisers.state()}
        save_checkpoint(self.run_folder, state, self.progress)

    def _out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.progress.validations_without_gain

    def _reader(self, split: SplitName) -> BatchReader:
        return BatchReader(
            store=self.samples,
            manifest=self.manifest,
            split=split,
            batch_size=self.config.batch_size,
            shuffle_rows=self.config.shuffle_rows,
            seed=self.config.seed,
            rank=self.rank.rank,
            ranks=self.rank.ranks,
        )

    def _batches(self, reader: BatchReader, epoch: int, first_step: int) -> Prefetcher[Batch]:
        return Prefetcher(reader.batches(epoch, first_step))
