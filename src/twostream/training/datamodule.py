"""The clips of a run as Lightning wants them; all that is drawn follows from (seed, epoch, index)."""

from collections.abc import Sequence

import lightning as L
from torch.utils.data import DataLoader

from twostream.clip import Clip, InputSpec
from twostream.data.annotations import VideoItem
from twostream.data.dataset import EpochSampler, VideoDataset
from twostream.errors import UsageError
from twostream.flow.store import FlowStore
from twostream.training.config import TrainConfig


class ClipModule(L.LightningDataModule):
    """Loaders over the training clips (augmented) and the held-out clips (centre view)."""

    def __init__(
        self,
        config: TrainConfig,
        spec: InputSpec,
        *,
        train: Sequence[VideoItem],
        val: Sequence[VideoItem],
        store: FlowStore,
        classes: Sequence[str],
    ) -> None:
        super().__init__()
        if unknown := sorted(set(config.no_flip) - set(classes)):
            raise UsageError(f"--no_flip names {unknown}, which are no classes of the data; those are {list(classes)}")
        self.config = config
        self.train_clips = VideoDataset(
            train,
            store,
            spec,
            seed=config.seed,
            augment=config.augment,
            no_flip=[classes.index(name) for name in config.no_flip],
            short_clips=config.short_clips,
        )
        self.val_clips = VideoDataset(val, store, spec, seed=config.seed, augment=None, short_clips=config.short_clips)

    def train_dataloader(self) -> DataLoader[Clip]:
        """Every clip ``repeats`` times an epoch in an order of its own, dealt out to the ranks."""
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(
            len(self.train_clips),
            seed=self.config.seed,
            repeats=self.config.trainer.repeats or 1,
            rank=rank,
            world_size=world,
            batch_size=self.config.optim.batch_size if self.config.sampling == "released_code" else None,
        )
        return self._loader(self.train_clips, sampler)

    def val_dataloader(self) -> DataLoader[Clip]:
        """The held-out clips in their order; the trainer asks for them only where there are any."""
        return self._loader(self.val_clips, None)

    def _loader(self, clips: VideoDataset, sampler: EpochSampler | None) -> DataLoader[Clip]:
        workers = self.config.trainer.loader_workers or 0
        return DataLoader(
            clips,
            batch_size=self.config.optim.batch_size,
            sampler=sampler,
            num_workers=workers,
            # Forked workers hang with OpenCV and OpenMP.
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            pin_memory=self.config.trainer.precision == "16-mixed",
        )
