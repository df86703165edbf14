"""The baselines: frames alone, flow alone, both with late fusion, and TSN's consensus over segments."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from twostream.clip import InputSpec, Looking, Stream, Votes
from twostream.errors import UsageError
from twostream.models.backbone import Backbone, InputScale
from twostream.models.backbones import build_backbone
from twostream.models.contract import Normalise, VideoModel
from twostream.weights.inflate import first_layer
from twostream.weights.strict import load_strict


class StreamNetwork(nn.Module):
    """One stream: normalise, backbone, mean over space, dropout, linear classifier, mean over segments.

    Shapes: (B, T, C, H, W) -> logits (B, K).
    """

    def __init__(self, backbone: Backbone, normalise: Normalise, *, num_classes: int, dropout: float) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout is the share of features set to zero, at least 0 and below 1, got {dropout}")
        self.normalise = normalise
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.taps[-1].channels, num_classes)
        # As in the papers' base streams; all classes start nearly equal, so the first loss is log K a vote.
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits averaged over the segments."""
        B, T, _, _, _ = x.shape
        x = self.normalise(x.flatten(0, 1))  # (B T, C, H, W)
        x = self.backbone(x).mean((2, 3))  # (B T, C'): a classifier on every cell, averaged, is the same and slower
        logits: Tensor = self.classifier(self.dropout(x))  # (B T, K)
        return logits.reshape(B, T, -1).mean(1)  # (B, K)


class TwoStream(VideoModel):
    """One image network on frames, one on stacks of flow, or only one of them; a vote for each.

    The streams meet in the protocol that averages their votes (late fusion), never before. With more than one step
    the logits of the steps are averaged inside (TSN's segment consensus), so training sees the whole clip.

    Shapes: ``rgb`` (B, T, 3, H, W), ``flow`` (B, T, 2L, H, W) -> (B, V, K), V the number of streams, appearance first.

    Reference: Simonyan and Zisserman, Two-Stream Convolutional Networks, NIPS 2014; Wang et al., Temporal Segment
    Networks, ECCV 2016, sections 3.1 and 3.2.
    """

    def __init__(
        self,
        appearance: Backbone | None,
        motion: Backbone | None,
        *,
        spec: InputSpec,
        num_classes: int,
        dropout: float,
        motion_dropout: float,
    ) -> None:
        votes: Votes = tuple((stream, 1) for stream in spec.streams)
        identity = next(b.identity for b in (appearance, motion) if b is not None)
        super().__init__(spec=spec, votes=votes, num_classes=num_classes, backbone_identity=identity)
        self.appearance: StreamNetwork | None = None
        self.motion: StreamNetwork | None = None
        if appearance is not None:
            normalise = Normalise(spec.rgb_mean, spec.rgb_std)
            self.appearance = StreamNetwork(appearance, normalise, num_classes=num_classes, dropout=dropout)
        if motion is not None:
            normalise = Normalise(spec.flow_mean, spec.flow_std)
            self.motion = StreamNetwork(motion, normalise, num_classes=num_classes, dropout=motion_dropout)

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, V, K)."""
        self.check(rgb, flow)
        votes: list[Tensor] = []
        if self.appearance is not None:
            votes.append(self.appearance(rgb))
        if self.motion is not None:
            votes.append(self.motion(flow))
        return torch.stack(votes, dim=1)  # (B, V, K)

    def load_backbones(self, state: Mapping[str, Tensor], *, source: str) -> str:
        """The frames' network takes the weights as they are, the flow's with its first layer spread over 2L channels.

        Reference: Wang et al., ECCV 2016, section 3.2 (cross modality pre-training).
        """
        done = []
        if self.appearance is not None:
            load_strict(self.appearance.backbone, state, source=source)
            done.append("appearance as it is")
        if self.motion is not None:
            backbone, channels = self.motion.backbone, self.motion.backbone.in_channels
            inflated = first_layer(state, channels, name=backbone.first_layer)
            load_strict(backbone, inflated, source=source)
            done.append(f"motion with the first layer averaged over colour and repeated {channels} times")
        return ", ".join(done)


def input_spec(
    *,
    scale: InputScale,
    streams: tuple[Stream, ...],
    size: int,
    resize: int | None,
    segments: int,
    flow_length: int,
    flow_offset: int | None,
    fps: float | None,
    region: Looking,
) -> InputSpec:
    """The InputSpec of networks that judge every step alone, normalised as the backbone's published weights expect.

    ``resize`` None keeps the usual 256 : 224 between stored short side and crop; ``flow_offset`` None centres the
    stack on the frame.
    """
    return InputSpec(
        **scale._asdict(),
        streams=streams,
        size=size,
        resize=round(size * 256 / 224) if resize is None else resize,
        steps=segments,
        snippets=segments,
        flow_length=flow_length,
        flow_offset=-(flow_length // 2) if flow_offset is None else flow_offset,
        sampling="segments",
        fps=fps,
        region=region,
    )


def two_stream(
    backbone: str,
    *,
    num_classes: int,
    streams: tuple[Stream, ...] = ("appearance", "motion"),
    dropout: float = 0.5,
    motion_dropout: float | None = None,
    segments: int = 1,
    size: int = 224,
    resize: int | None = None,
    flow_length: int = 10,
    flow_offset: int | None = None,
    fps: float | None = None,
    region: Looking = "frame",
    **backbone_numbers: Any,
) -> TwoStream:
    """One kind of image network on frames, flow or both.

    Args:
        backbone: a name of ``models.backbones.BACKBONES``.
        num_classes: K.
        streams: which streams there are.
        dropout: before the classifier.
        motion_dropout: the motion stream's own; None: the same. The papers' base streams have 0 and 0.8.
        segments: T in training; their logits are averaged.
        size: side of the training crop in px.
        resize: stored short side in px; None: 8/7 of ``size``.
        flow_length: L, fields per stack.
        flow_offset: first field of a stack relative to its frame; None: centred.
        fps: common frame rate; None: each video's own.
        region: what crops are taken from: all of the ``"frame"``, or where in it the ``"motion"`` is.
        backbone_numbers: the backbone's own, for both streams: ``width``, a ResNet's ``layout``, VGG's ``batch_norm``.
    """
    appearance = motion = None
    if "appearance" in streams:
        appearance = build_backbone(backbone, **backbone_numbers)
    if "motion" in streams:
        motion = build_backbone(backbone, in_channels=2 * flow_length, **backbone_numbers)
    spec = input_spec(
        scale=next(b.scale for b in (appearance, motion) if b is not None),
        streams=streams,
        size=size,
        resize=resize,
        segments=segments,
        flow_length=flow_length,
        flow_offset=flow_offset,
        fps=fps,
        region=region,
    )
    return TwoStream(
        appearance,
        motion,
        spec=spec,
        num_classes=num_classes,
        dropout=dropout,
        motion_dropout=dropout if motion_dropout is None else motion_dropout,
    )


__all__ = ["StreamNetwork", "TwoStream", "input_spec", "two_stream"]
