"""The training loop: steps, validation, early stopping, checkpoints. K is the number of loss terms."""

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
from pipeline.columns import SAMPLE_ID
from pipeline.errors import StrataError
from pipeline.manifest import Manifest, SplitName
from pipeline.training.config import TrainConfig
from pipeline.training.interrupts import Interrupts
from pipeline.training.processes import Rank
from pipeline.training.saving.checkpoints import Progress
from pipeline.training.saving.saver import Saver
from pipeline.training.stepping.gradients import DenseGradients, slice_count
from pipeline.training.stepping.optimisers import Optimisers
from pipeline.training.stepping.precision import select_precision
from pipeline.training.stepping.step import Stepper, StepResult
from pipeline.training.watching.bad_samples import bad_samples
from pipeline.training.watching.health import Health
from pipeline.training.watching.record import Record
from pipeline.training.watching.window import Window

LOOK_EVERY = 10  # steps on a GPU after which the host waits for the device, to see whether the run is to stop


class Loop:
    """Trains a sharded model from where `progress` stands to the end of the run."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        manifest: Manifest,
        rank: Rank,
        model: DistributedModelParallel,
        objectives: Objectives,
        optimisers: Optimisers,
        progress: Progress,
        saver: Saver,
    ) -> None:
        """The model and the optimisers must hold the state that belongs to `progress`.

        Raises StrataError if a split has too few rows for the ranks.
        """
        self.config = config.loop
        self.save_every = config.checkpoints.every
        self.schedule = config.schedule
        self.run_folder = config.out
        self.samples = config.samples
        self.manifest = manifest
        self.rank = rank
        self.model = model
        self.precision = select_precision(config.dense.precision, model.module.network, rank)
        slices = slice_count(config.model, rank)
        gradients = DenseGradients(model.module.network, objectives, self.precision, slices)
        self.stepper = Stepper(model.module.embeddings, gradients, optimisers, rank.device)
        self.objectives = objectives
        self.optimisers = optimisers
        self.progress = progress
        self.saver = saver
        self.window = Window(objectives, rank.device, progress.skipped, progress.skipped_in_a_row)
        self.interrupted_by = 0
        self.train_reader, self.valid_reader = self._reader("train"), self._reader("valid")
        self.total_steps = self.config.epochs * self.train_reader.steps
        for reader in (self.train_reader, self.valid_reader):
            reader.check()

    def run(self, record: Record, interrupts: Interrupts) -> None:
        """Trains until the last epoch, until patience ends, or until a signal.

        Raises StrataError, on all ranks, if a checkpoint cannot be written or the loss is no longer finite.
        """
        saved_at = self.progress.step
        validate_every = self.config.validate_every or self.train_reader.steps
        for _ in self._steps(record, interrupts):
            # A due validation comes before a signal ends the run: a resumed run would not make up for it.
            validate = self.progress.step % validate_every == 0 or self.progress.step == self.total_steps
            if validate:
                self._validate(record)
            if validate or (self.save_every and self.progress.step % self.save_every == 0):
                self._save()
                saved_at = self.progress.step
            if self.interrupted_by or self._out_of_patience():
                break
        if self.progress.step > saved_at:
            self._save()
        self.saver.wait()
        if self.interrupted_by:
            record.say(f"interrupted after step {self.progress.step}; a checkpoint is saved, --resume goes on from it")
        elif self._out_of_patience():
            record.say(f"stopped early: {self.config.patience} validations without a lower loss")

    def _steps(self, record: Record, interrupts: Interrupts) -> Iterator[None]:
        """The remaining steps, epoch by epoch; none if patience has ended already."""
        while self.progress.epoch < self.config.epochs and not self._out_of_patience():
            yield from self._epoch(record, interrupts)
            self.progress.epoch += 1
            self.progress.epoch_step = 0

    def _epoch(self, record: Record, interrupts: Interrupts) -> Iterator[None]:
        """The remaining steps of an epoch."""
        batches = self._batches(self.train_reader, self.progress.epoch, self.progress.epoch_step)
        ready = iter(batches)
        window = self.window
        window.begin()
        began, waited = time.perf_counter(), 0.0
        self.model.train()
        while self.progress.epoch_step < self.train_reader.steps:
            # A failed checkpoint ends the run as a signal does: at the same step on all ranks.
            window.add(self._step(ready, asked_to_stop=bool(interrupts.received) or self.saver.failed))
            due = self.progress.step % self.config.log_every == 0 or self.progress.step == self.total_steps
            # On a GPU the host runs ahead. It looks at the results where it waits anyway, and every few steps.
            if due or self.rank.device.type == "cpu" or self.progress.step % LOOK_EVERY == 0:
                if window.signals:
                    self.interrupted_by = interrupts.received or SIGTERM
                if window.in_a_row >= self.config.bad_steps:
                    raise self._diverged()
            self.progress.valid_loss = None
            record.advance()
            if due:
                self._log_window(record, time.perf_counter() - began, batches.waited_s - waited)
                window.begin()
                began, waited = time.perf_counter(), batches.waited_s
            yield

    def _log_window(self, record: Record, seconds: float, waited_s: float) -> None:
        """Records the steps since the last line, which took `seconds`; for `waited_s` of them no batch was ready."""
        if not self.window.sums.any():
            record.say(f"step {self.progress.step}: no step since the last line had a finite loss and gradient")
            return
        loss, losses, weights = self._report(self.window.sums)
        record.log(
            self.progress.step,
            "train",
            loss,
            losses,
            weights,
            epoch=self.progress.epoch,
            rate=self.schedule.factor(self.progress.step - 1, self.total_steps),
            samples_per_s=self.window.rows * self.rank.ranks / seconds,
            data_wait=waited_s / seconds,
            skipped=self.window.skipped,
        )

    def _step(self, batches: Iterator[Batch], *, asked_to_stop: bool) -> StepResult:
        """Updates the model by the next batch."""
        # Seeded by step and rank, so that a resumed run draws the same dropout.
        torch.manual_seed((self.config.seed * 1_000_003 + self.progress.step) * 1_009 + self.rank.rank)
        self.optimisers.set_rate(self.schedule.factor(self.progress.step, self.total_steps))
        result = self.stepper.step(batches, asked_to_stop=asked_to_stop)
        self.progress.step += 1
        self.progress.epoch_step += 1
        return result

    def _diverged(self) -> StrataError:
        """The error after too many steps in a row without a finite loss and gradient. Every rank calls it.

        The last step changed nothing, so the model still gives the same outputs for its batch.
        """
        self.stepper.pause()
        step = self.progress.epoch_step - 1
        batch = next(iter(self._batches(self.train_reader, self.progress.epoch, step))).to(self.rank.device)
        sample_ids = next(self.train_reader.tables([SAMPLE_ID], self.progress.epoch, step))[SAMPLE_ID].to_pylist()
        with torch.no_grad():
            outputs = self.model(batch.sparse, batch.dense)
        named = bad_samples(self.manifest.spec, self.objectives, outputs, batch, sample_ids)
        what = f"{self.window.in_a_row} steps in a row, the last of them {self.progress.step}, had no finite gradient"
        return StrataError(
            f"{what} ({named})",
            where=self.run_folder,
            fix="look at these samples, or lower --dense.learning-rate or --tables.learning-rate",
        )

    @torch.no_grad()
    def _validate(self, record: Record) -> None:
        """Records the validation loss and what looks wrong with the model, and whether the loss is the lowest yet."""
        self.stepper.pause()
        self.model.eval()
        sums = torch.zeros(2 * len(self.objectives.layout.terms), device=self.rank.device)
        with Health(self.manifest.spec, self.objectives, self.model.module.network) as health:
            for batch in self._batches(self.valid_reader, epoch=0, first_step=0):
                here = batch.to(self.rank.device)
                outputs = self.model(here.sparse, here.dense)
                sums += torch.cat(
                    self.objectives.weighted_sums(outputs, here.labels, here.masks, here.scenes, here.weight)
                )
                health.add(outputs, here)
        dist.all_reduce(sums)
        health.gather()
        self.model.train()
        loss, losses, weights = self._report(sums)
        warnings = health.warnings(self.optimisers.state()["tables"])
        entropies = {f"gate_entropy/{gate}": entropy for gate, entropy in health.entropies.items()}
        record.log(self.progress.step, "valid", loss, losses, weights, warnings, epoch=self.progress.epoch, **entropies)
        self.progress.valid_loss = loss
        if self.progress.best_loss is None or loss < self.progress.best_loss:
            self.progress.best_loss = loss
            self.progress.validations_without_gain = 0
        else:
            self.progress.validations_without_gain += 1

    def _report(self, sums: Tensor) -> tuple[float, dict[str, float], dict[str, float]]:
        """The loss, each objective's mean loss over all its rows, and their weight, from global sums [2K].

        Raises StrataError if the loss is not finite.
        """
        losses_K, weights_K = sums.chunk(2)
        losses, weights = {}, {}
        for at, name in enumerate(self.manifest.spec.objectives):
            terms = [k for k, term in enumerate(self.objectives.layout.terms) if term.objective == at]
            weights[name] = weights_K[terms].sum().item()
            losses[name] = losses_K[terms].sum().item() / max(1.0, weights[name])
        loss = self.objectives.combine(losses_K, weights_K).item()
        if not math.isfinite(loss):
            raise StrataError(
                f"the validation loss is {loss} after step {self.progress.step}",
                where=self.run_folder,
                fix="lower --dense.learning-rate or --tables.learning-rate",
            )
        return loss, losses, weights

    def _save(self) -> None:
        self.progress.skipped = self.window.skipped
        self.progress.skipped_in_a_row = self.window.in_a_row
        self.saver.save({"model": self.model.state_dict(), "optimisers": self.optimisers.state()}, self.progress)

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
            rank_here=self.rank.rank_here,
            ranks_here=self.rank.ranks_here,
        )

    def _batches(self, reader: BatchReader, epoch: int, first_step: int) -> Prefetcher[Batch]:
        batches = reader.batches(epoch, first_step)
        return Prefetcher(map(Batch.pin_memory, batches) if self.rank.device.type == "cuda" else batches)
