"""What happens around training: the progress line, the table of epochs, checkpoints that are whole or absent."""

import csv
import io
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from twostream.files import atomic_write
from twostream.training.module import current_rate
from twostream.units import seconds_text


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes trainer checkpoints beside their place and renames them: ``kill -9`` leaves the previous one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write one checkpoint, whole or not at all."""
        del storage_options
        with atomic_write(Path(path)) as file:
            torch.save(checkpoint, file)


class LastCheckpoint(Callback):
    """Keeps ``last.ckpt`` up to date at ends of epochs, not more often than every ``seconds``."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path = path
        self.seconds = seconds
        self._saved_at = -math.inf

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save when it is time, and always after the last epoch."""
        del pl_module
        last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) or trainer.should_stop
        # Every rank must take part in a save or none: the first rank's clock decides.
        due = trainer.strategy.broadcast(last or time.monotonic() - self._saved_at >= self.seconds)
        if due:
            trainer.save_checkpoint(self.path)
            self._saved_at = time.monotonic()


class EpochTable(Callback):
    """``metrics.csv``: a row an epoch, rewritten whole, continued and never doubled when a run is resumed."""

    COLUMNS = ("epoch", "step", "train_loss", "train_top1", "val_loss", "val_top1", "lr", "seconds")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        self._started = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the rows of the epochs that an earlier sitting finished."""
        del pl_module
        if self.path.exists():
            with self.path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the epoch's clock."""
        del trainer, pl_module
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the epoch's row."""
        # Asking for the metrics gathers them from all ranks, so every rank must ask.
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero:
            return
        row = {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step)}
        metrics["lr"] = current_rate(pl_module)
        metrics["seconds"] = time.monotonic() - self._started
        row |= {name: f"{metrics[name]:.6g}" for name in self.COLUMNS if name in metrics}
        self.rows = [r for r in self.rows if int(r["epoch"]) < trainer.current_epoch] + [row]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        with atomic_write(self.path) as file:
            file.write(text.getvalue().encode())


class EpochLines(Callback):
    """Says what matters once an epoch: losses, accuracy on held-out clips, time left; and the batch on a terminal."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._first_epoch = 0
        self._began = time.monotonic()
        self._drawn = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock that the time left is judged by."""
        del pl_module
        self._first_epoch = trainer.current_epoch
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Redraw the batch counter, where there is a terminal to draw on."""
        del pl_module, kwargs
        now = time.monotonic()
        if not (trainer.is_global_zero and sys.stderr.isatty()) or now - self._drawn < 0.2:
            return
        self._drawn = now
        batch = args[2] + 1
        sys.stderr.write(
            f"\repoch {trainer.current_epoch + 1}/{trainer.max_epochs}: batch {batch}/{trainer.num_training_batches} "
        )
        sys.stderr.flush()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the epoch's line."""
        del pl_module
        metrics = trainer.callback_metrics  # gathered from all ranks, so every rank must ask
        if not trainer.is_global_zero:
            return
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
        done = trainer.current_epoch + 1 - self._first_epoch
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        seconds = (time.monotonic() - self._began) / done
        parts = [f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}:", *metric_words(metrics)]
        self.say(" ".join(parts) + f" | {seconds:.1f} s an epoch, {seconds_text(left * seconds)} left")


def metric_words(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics of an epoch as short words, those absent left out."""
    words = []
    for name, label, style in (
        ("train_loss", "loss", ".3f"),
        ("train_top1", "top-1", ".3f"),
        ("val_loss", "held-out loss", ".3f"),
        ("val_top1", "held-out top-1", ".3f"),
    ):
        if name in metrics:
            words.append(f"{label} {float(metrics[name]):{style}}")
    return words
