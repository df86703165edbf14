"""What can be had without a network: figures that a network's must be seen beside.

``chance`` guesses. ``clip_shape`` is a linear model on a clip's width, height and number of frames alone: where clips
were cut by hand around what happens, their shape gives the class away. ``flow_histogram`` is the same model on
histograms of the flow that the networks see. ``ceiling`` is what the best two streams could reach on generated videos,
whose classes are made so that it is known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from twostream.clip import Scores
from twostream.data.annotations import Annotations
from twostream.data.items import DataError, VideoItem
from twostream.data.motion_shapes import Settings
from twostream.data.sampling import frame_range
from twostream.video import VideoError, VideoInfo

FloatArray = npt.NDArray[np.float64]

# Of the squared weights, beside the summed log losses: a normal prior of unit variance on weights of standardised
# features. Fixed beforehand, so that nothing is chosen.
PENALTY = 1.0


def chance(classes: int) -> dict[str, Any]:
    """The figures expected of drawing one of K classes."""
    return {"top1": 1 / classes, "top5": min(5, classes) / classes, "mean_class": 1 / classes}


def clip_shape(
    annotations: Annotations, videos: Mapping[Path, VideoInfo | VideoError]
) -> tuple[Scores, dict[str, str]]:
    """Train and test a multinomial logistic regression on width, height, frame count and their logarithms.

    Features are standardised by the training part, and the strength of the penalty is fixed beforehand.

    Args:
        annotations: the data set; its test part is judged.
        videos: what decoding each of its videos showed, as ``data.reading.read_videos`` gives it.

    Returns:
        Scores of the test part (one view, one vote), and the reason for each video that could not be read.

    Raises:
        DataError: no readable training or test clips.
    """
    failed: dict[str, str] = {}
    sizes: dict[str, tuple[int, int, int]] = {}
    for item in (*annotations.parts["train"], *annotations.parts["test"]):
        info = videos[item.path]
        if isinstance(info, VideoError):
            failed[item.name] = str(info)
        else:
            frames = len(frame_range(item.start, item.end, info.fps, info.frames))
            sizes[item.name] = (info.width, info.height, max(1, frames))
    shapes = {name: np.array([*size, *np.log(size)], np.float64) for name, size in sizes.items()}
    return linear_scores(annotations, shapes, "clip_shape", vote="shape"), failed


def linear_scores(annotations: Annotations, features: Mapping[str, FloatArray], reference: str, *, vote: str) -> Scores:
    """Train a linear model on the training part and score the test part (one view, one vote).

    Args:
        annotations: the data set.
        features: (D,) of each clip by name; clips without any are left out.
        reference: what it is called.
        vote: the vote's name.

    Raises:
        DataError: no training or test clips have features.
    """
    train, test = ([item for item in annotations.parts[part] if item.name in features] for part in ("train", "test"))
    if not train or not test:
        raise DataError(f"{annotations.data}: {reference} needs clips to train and to test on that can be read")

    def of(items: Sequence[VideoItem]) -> FloatArray:
        return np.stack([features[item.name] for item in items])

    labels = np.array([item.label for item in train])
    logits = linear_model(of(train), labels, of(test), classes=len(annotations.classes))
    return Scores(
        logits=logits[:, None, None].astype(np.float32),
        labels=np.array([item.label for item in test], np.int64),
        videos=tuple(item.name for item in test),
        groups=tuple(item.group for item in test),
        classes=annotations.classes,
        votes=((vote, 1),),
        meta={"protocol": reference, "split": annotations.split, "part": "test"},
    )


def ceiling(settings: Settings) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The best top-1 on the test part by any late fusion of two streams, and by single frames and flow stacks alone."""
    best: Mapping[str, float] = settings.shapes.ceilings(settings.classes)
    return {"top1": best["late_fusion"]}, {stream: {"top1": best[stream]} for stream in ("appearance", "motion")}


def linear_model(
    train: FloatArray, labels: npt.NDArray[np.int64], test: FloatArray, *, classes: int, penalty: float = PENALTY
) -> FloatArray:
    """Logits (M, K) for ``test`` (M, D) of a multinomial logistic regression on ``train`` (N, D).

    Features are standardised by ``train``; the biases are not penalised. The problem is convex, so the answer is the
    same from any start and on any machine, up to rounding.
    """
    mean, spread = train.mean(axis=0), train.std(axis=0)
    # A feature that never changes says nothing, and has no spread to divide by.
    spread = np.where(spread > 1e-9 * np.maximum(1, np.abs(mean)), spread, np.inf)
    inputs = torch.from_numpy((train - mean) / spread)
    targets = torch.from_numpy(np.asarray(labels, np.int64))
    weights = torch.zeros(train.shape[1], classes, dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, biases], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weights + biases, targets, reduction="sum")
        value = value + penalty / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = torch.from_numpy((test - mean) / spread) @ weights + biases
    return cast(FloatArray, logits.numpy())
