"""One training step of any model that keeps the votes contract."""

from collections.abc import Sequence

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn, optim

from twostream.clip import Clip, Votes, vote_count
from twostream.errors import TwostreamError
from twostream.training.config import OptimConfig
from twostream.training.optim import build_optimizer, freeze, freeze_batch_norm, rate_factor, set_batch_norm_momentum


class TrainingError(TwostreamError):
    """Training cannot go on: the loss is not finite, or the run folder does not fit."""


def vote_loss(
    logits: Tensor, label: Tensor, *, label_smoothing: float = 0.0, weights: Sequence[float] | None = None
) -> Tensor:
    """Cross-entropy summed over votes and divided by the number of videos.

    Args:
        logits: (B, V, K).
        label: (B,) class indices.
        label_smoothing: share of the target spread over all classes.
        weights: V factors of the votes; None: all 1.

    Reference: ST-ResNet, released training code: losses of streams and time steps are summed, then divided by videos.
    """
    B, V, _ = logits.shape
    target = label.repeat_interleave(V)
    losses = F.cross_entropy(logits.float().flatten(0, 1), target, label_smoothing=label_smoothing, reduction="none")
    if weights is not None:
        losses = losses.reshape(B, V) * losses.new_tensor(weights)
    return losses.sum() / B


class Recognizer(L.LightningModule):
    """Trains a model under the loss of its votes; knows nothing of what is inside it."""

    def __init__(self, model: nn.Module, config: OptimConfig, *, seed: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.seed = seed
        self.frozen = freeze(model, config.frozen)
        freeze_batch_norm(self._streams(), config.frozen_batch_norm)
        if config.batch_norm_momentum is not None:
            set_batch_norm_momentum(model, config.batch_norm_momentum)

    def _streams(self) -> list[nn.Module]:
        return [child for child in self.model.children() if next(child.parameters(), None) is not None]

    def train(self, mode: bool = True) -> "Recognizer":
        """Training mode, with frozen parts and batch norms kept in inference mode."""
        super().train(mode)
        if mode:
            for module in self.frozen:
                module.eval()
            freeze_batch_norm(self._streams(), self.config.frozen_batch_norm)
        return self

    def on_train_batch_start(self, batch: Clip, batch_idx: int) -> None:
        """Tie dropout's draws to (seed, rank, epoch, batch), never to history: a resumed run draws the same."""
        del batch
        words = (self.seed, self.global_rank, self.current_epoch, batch_idx)
        state = 0
        for word in words:
            # 64-bit mixing keeps neighbouring seeds, epochs and batches apart.
            state = (state * 6364136223846793005 + word + 1442695040888963407) % 2**63
        torch.manual_seed(state)

    def training_step(self, batch: Clip, batch_idx: int) -> Tensor:
        """The loss of one batch; stops with advice where it is no longer finite."""
        logits = self.model(batch.rgb, batch.flow)
        assert isinstance(batch.label, Tensor)
        weights = getattr(self.model, "vote_weights", None)
        loss = vote_loss(logits, batch.label, label_smoothing=self.config.label_smoothing, weights=weights)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}, at learning "
                f"rate {current_rate(self):.2g}. What helps: a lower --optim.lr, a longer --optim.warmup, a smaller "
                "--optim.clip_norm, or --trainer.precision 32-true. The last checkpoint before this is kept."
            )
        if weights is not None:
            votes: Votes = self.model.votes  # type: ignore[assignment]
            logits = logits[:, : vote_count(votes)]  # the others are for the loss alone
        right = (logits.float().mean(dim=1).argmax(dim=1) == batch.label).float().mean()
        B = len(batch.label)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=B, sync_dist=True)
        self.log("train_top1", right, on_step=False, on_epoch=True, batch_size=B, sync_dist=True)
        return loss

    def validation_step(self, batch: Clip, batch_idx: int) -> None:
        """Loss and accuracy of the held-out clips, one view each."""
        del batch_idx
        logits = self.model(batch.rgb, batch.flow).float()
        assert isinstance(batch.label, Tensor)
        B = len(batch.label)
        right = (logits.mean(dim=1).argmax(dim=1) == batch.label).float().mean()
        self.log("val_loss", vote_loss(logits, batch.label), batch_size=B, sync_dist=True)
        self.log("val_top1", right, batch_size=B, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser, with a schedule that advances at every optimiser step."""
        optimizer = build_optimizer(self.model, self.config)
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = optim.lr_scheduler.LambdaLR(optimizer, rate_factor(self.config, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def current_rate(module: L.LightningModule) -> float:
    """The learning rate of the first parameter group."""
    optimizer = module.optimizers()
    assert not isinstance(optimizer, list)
    return float(optimizer.param_groups[0]["lr"])
