"""ST-ResNet: two residual networks joined by residual connections, and over time; ST-MulNet beside it.

Feichtenhofer, Pinz, Wildes: Spatiotemporal Residual Networks for Video Action Recognition, NIPS 2016. (Not the
network for traffic forecasting of the same short name.)
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from twostream.clip import InputSpec, Looking, Stream
from twostream.errors import UsageError
from twostream.layers.injection import UNCONNECTED, Connection, Direction, Operation, Place
from twostream.layers.temporal_conv import TAPS, TemporalConv, TemporalInit, pooled_steps, temporal_max_pool
from twostream.models.contract import Normalise, VideoModel
from twostream.models.resnet import DEPTHS, Layout, ResNet, UnitBuilder
from twostream.models.temporal_units import MultiplierBasic, MultiplierBottleneck, TemporalBasic, TemporalBottleneck
from twostream.weights.inflate import first_layer, over_time
from twostream.weights.strict import load_strict

STAGES = ("conv2", "conv3", "conv4", "conv5")

TemporalUnits = Literal["second", "last", "all", "none"]
TemporalStreams = Literal["both", "appearance", "motion"]
Variant = Literal["st_resnet", "st_mulnet"]


class JoinedStream(nn.Module):
    """One stream, open between its stages: the way in, the backbone, and the way from its last map to logits.

    Args:
        backbone: its stages are walked by :class:`STResNet`.
        normalise: from the 0..255 scale.
        num_classes: K.
        dropout: before the classifier.
        window: side of the spatial pooling, 7 as published: what a training crop's last map measures. On larger maps it
            moves over all places, on smaller ones it is the map.
    """

    def __init__(
        self, backbone: ResNet, normalise: Normalise, *, num_classes: int, dropout: float, window: int
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UsageError(f"dropout is the share of features set to zero, at least 0 and below 1, got {dropout}")
        self.normalise = normalise
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(backbone.taps[-1].channels, num_classes)
        self.window = window
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def stem(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) on the 0..255 scale -> (B T, C', H / 4, W / 4)."""
        return self.backbone.stem(self.normalise(x.flatten(0, 1)))

    def classify(self, x: Tensor, steps: int) -> Tensor:
        """(B T', C, h, w) -> logits (B, T', K): pool5, the classifier at every place, the mean over space."""
        _, _, h, w = x.shape
        x = F.avg_pool2d(x, (min(self.window, h), min(self.window, w)), stride=1)
        x = x.mean((2, 3))  # (B T', C): the classifier is linear, so the places may be averaged before it
        logits: Tensor = self.classifier(self.dropout(x))
        return logits.unflatten(0, (-1, steps))  # type: ignore[no-untyped-call, no-any-return]


class STResNet(VideoModel):
    """Two ResNets on frames and flow of T steps, joined once a stage, with filters over time in both.

    Shapes: ``rgb`` (B, T, 3, H, W), ``flow`` (B, T, 2L, H, W) -> (B, 2 T', K), the votes of appearance first. T' = T
    without temporal pooling; any T and any size will do that the pooling leaves something of.

    Reference: Feichtenhofer et al., NIPS 2016, section 3, figure 3 and table 1; Feichtenhofer et al., CVPR 2017.

    Args:
        appearance, motion: of one depth, layout and width.
        connections: one for each of the four stages.
        temporal_pool: steps under one maximum before the spatial pooling; None: no temporal pooling.
        temporal_pool_stride: steps from one to the next.
        dropout, motion_dropout: before the classifiers.
        activation_checkpointing: in training, keep only what goes from stage to stage and compute the rest again on
            the way back: less memory, a third more time, the same numbers.
    """

    def __init__(
        self,
        appearance: ResNet,
        motion: ResNet,
        *,
        spec: InputSpec,
        num_classes: int,
        connections: tuple[Connection, Connection, Connection, Connection],
        temporal_pool: int | None,
        temporal_pool_stride: int,
        dropout: float,
        motion_dropout: float,
        activation_checkpointing: bool = False,
    ) -> None:
        self.temporal_pool, self.temporal_pool_stride = temporal_pool, temporal_pool_stride
        V = self.steps_after_pooling(spec.steps)
        super().__init__(
            spec=spec,
            votes=(("appearance", V), ("motion", V)),
            num_classes=num_classes,
            backbone_identity=appearance.identity,
        )
        self.connections = connections
        self.activation_checkpointing = activation_checkpointing
        window = -(-spec.size // appearance.taps[-1].stride)
        self.appearance, self.motion = (
            JoinedStream(backbone, normalise, num_classes=num_classes, dropout=p, window=window)
            for backbone, normalise, p in (
                (appearance, Normalise(spec.rgb_mean, spec.rgb_std), dropout),
                (motion, Normalise(spec.flow_mean, spec.flow_std), motion_dropout),
            )
        )

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, 2 T', K)."""
        self.check(rgb, flow)
        T = rgb.shape[1]
        a, m = self.appearance.stem(rgb), self.motion.stem(flow)  # (B T, 64, H / 4, W / 4)
        for number in range(len(STAGES)):
            a, m = self.keeping_less(self.stage, number, a, m, T)  # (B T, 256 ... 2048, H / 4 ... H / 32, W / 4 ...)
        if self.temporal_pool is not None:
            pool = partial(temporal_max_pool, steps=T, size=self.temporal_pool, stride=self.temporal_pool_stride)
            a, m = pool(a), pool(m)  # (B T', 2048, H / 32, W / 32)
        steps = self.steps_after_pooling(T)
        return torch.cat((self.appearance.classify(a, steps), self.motion.classify(m, steps)), dim=1)

    def stage(self, number: int, a: Tensor, m: Tensor, T: int) -> tuple[Tensor, Tensor]:
        """One stage of both streams: the first units, what they give each other, and the units that follow."""
        a_first, a_second, *a_rest = self.appearance.backbone.units(number)
        m_first, m_second, *m_rest = self.motion.backbone.units(number)
        # Sums before the ReLU go in; what each second unit reads on its shortcut and in its branch comes out.
        into_a, into_m = self.connections[number](a_first.add(a, steps=T), m_first.add(m, steps=T))
        a, m = a_second(*into_a, steps=T), m_second(*into_m, steps=T)
        for a_unit, m_unit in zip(a_rest, m_rest, strict=True):
            a, m = a_unit(a, steps=T), m_unit(m, steps=T)
        return a, m

    def steps_after_pooling(self, steps: int) -> int:
        """T', the votes of each stream."""
        if self.temporal_pool is None:
            return steps
        return pooled_steps(steps, size=self.temporal_pool, stride=self.temporal_pool_stride)

    def check(self, rgb: Tensor, flow: Tensor) -> None:
        """Beside what every network checks: enough steps for the temporal pooling."""
        super().check(rgb, flow)
        self.steps_after_pooling(rgb.shape[1])

    def keeping_less(self, stage: Callable[..., tuple[Tensor, Tensor]], *inputs: int | Tensor) -> tuple[Tensor, Tensor]:
        """Run a stage; with activation checkpointing keep its inputs alone for the way back."""
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return stage(*inputs)
        contexts = lambda: (nullcontext(), _without_running_statistics(self))  # noqa: E731
        a, m = checkpoint(stage, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        return a, m

    def load_backbones(self, state: Mapping[str, Tensor], *, source: str) -> str:
        """Frames' network as it is, flow's with its first layer spread over 2L channels; both then grow over time.

        Reference: Feichtenhofer et al., NIPS 2016, sections 3.1 and 3.3.
        """
        backbone, channels = self.motion.backbone, self.motion.backbone.in_channels
        inflated = first_layer(state, channels, name=backbone.first_layer)
        for stream, given in ((self.appearance, state), (self.motion, inflated)):
            load_strict(stream.backbone, _grown(stream.backbone, given), source=source)
        filters = sum(isinstance(module, TemporalConv) for module in self.modules())
        return (
            f"appearance as it is, motion with the first layer averaged over colour and repeated {channels} times, "
            f"{filters} filters over time begun by their rule"
        )

    def adapt(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """1x1 filters that stand in the place of filters over time are spread over the three steps."""
        adapted, how = dict(state), {}
        for name, module in self.named_modules():
            key = f"{name}.weight"
            if isinstance(module, TemporalConv) and module.init != "random" and key in state and state[key].ndim == 4:
                adapted = over_time(adapted, [key], TAPS[module.init])
                how[key] = f"1x1 filters spread over three steps ({module.init})"
        return adapted, how


def _grown(backbone: ResNet, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image network's weights with those over time: 1x1 filters spread, others as they were begun."""
    own = backbone.state_dict()
    for name, module in backbone.named_modules():
        if not isinstance(module, TemporalConv):
            continue
        key = f"{name}.weight"
        if not module.identity and key not in state:
            continue  # the strict loader tells
        if not module.identity and module.init != "random":
            state = over_time(state, [key], TAPS[module.init])
        else:
            state = {**state, **{n: own[n] for n in (key, f"{name}.bias") if n in own}}
    return dict(state)


@contextmanager
def _without_running_statistics(model: nn.Module) -> Iterator[None]:
    """For a second pass over the same batch: no batch norm may count it twice."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm._buffers) for norm in norms]
    # The second pass writes into copies: without running statistics it would keep other tensors than the first.
    for norm, buffers in zip(norms, kept, strict=True):
        norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)


_UNITS: dict[tuple[Variant, bool], UnitBuilder] = {
    ("st_resnet", True): TemporalBottleneck,
    ("st_resnet", False): TemporalBasic,
    ("st_mulnet", True): MultiplierBottleneck,
    ("st_mulnet", False): MultiplierBasic,
}


def st_resnet(
    variant: Variant,
    depth: int,
    *,
    num_classes: int,
    layout: Layout = "torchvision",
    width: int = 64,
    direction: Direction = "motion_to_appearance",
    place: Place = "residual",
    operation: Operation = "add",
    connected_stages: str = " ".join(STAGES),
    temporal_units: TemporalUnits = "second",
    temporal_streams: TemporalStreams = "both",
    temporal_init: TemporalInit = "average",
    temporal_pool: int | None = None,
    temporal_pool_stride: int = 2,
    steps: int | None = None,
    min_stride: int | None = None,
    max_stride: int = 15,
    dropout: float = 0.0,
    motion_dropout: float | None = None,
    size: int = 224,
    resize: int | None = None,
    flow_length: int = 10,
    flow_offset: int | None = None,
    fps: float | None = None,
    region: Looking = "frame",
    activation_checkpointing: bool = False,
) -> STResNet:
    """ST-ResNet or ST-MulNet on ResNets of any depth; the defaults are those of the paper's first training stage.

    Args:
        variant: whose filters over time: ``"st_resnet"`` in the place of a 1x1, ``"st_mulnet"`` added between.
        depth: of both streams' ResNets.
        num_classes: K.
        layout: the papers' is ``"caffe"``.
        width: channels of the stem.
        direction: which stream receives.
        place: into the next unit's residual branch, or directly into the path.
        operation: sum or product.
        connected_stages: those of ``conv2 conv3 conv4 conv5`` at which the streams are joined.
        temporal_units: which unit of each stage looks over time. ``"all"`` is all but the first, whose 1x1 carries the
            stride; ``"none"`` leaves every step alone. (The released code goes by names, and in a ResNet-101 or 152
            would find the second unit of the first and the last stage only; here it is that of all four.)
        temporal_streams: in which streams.
        temporal_init: how filters over time begin, also when weights of an image network or a two-stream run are
            taken over.
        temporal_pool: 5 in the second training stage; None: no temporal pooling.
        temporal_pool_stride: steps from one maximum to the next.
        steps: T in training; None: the papers' 5, or 11 with temporal pooling.
        min_stride: least number of frames between steps; None: the papers' 5, or 1 with temporal pooling.
        max_stride: greatest.
        dropout: before the classifiers.
        motion_dropout: the motion stream's own; None: the same.
        size: side of the training crop in px.
        resize: stored short side in px; None: 8/7 of ``size``.
        flow_length: L, fields per stack.
        flow_offset: first field of a stack relative to its frame; None: centred.
        fps: common frame rate; None: each video's own.
        region: what crops are taken from: all of the ``"frame"``, or where in it the ``"motion"`` is.
        activation_checkpointing: less memory in training for a third more time.

    Raises:
        UsageError: a number out of range; the message says what would do.
    """
    joined = connected_stages.replace(",", " ").split()
    if unknown := sorted(set(joined) - set(STAGES)):
        raise UsageError(f"connected_stages are drawn from {' '.join(STAGES)!r}, got {' '.join(unknown)!r}")
    for name, value in (("temporal_pool", temporal_pool), ("temporal_pool_stride", temporal_pool_stride)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is a number of steps, at least 1, got {value}")
    staged = temporal_pool is not None
    steps = (11 if staged else 5) if steps is None else steps
    if temporal_pool is not None and steps < temporal_pool:
        raise UsageError(f"steps={steps} are fewer than temporal_pool={temporal_pool} needs; steps may be left out")

    builder = partial(_UNITS[variant, depth >= 50], init=temporal_init)
    backbones = {}
    for stream, in_channels in (("appearance", 3), ("motion", 2 * flow_length)):
        here = temporal_units if temporal_streams in ("both", stream) else "none"
        backbones[stream] = ResNet(
            depth, in_channels=in_channels, layout=layout, width=width, unit_at=_places(here, depth, builder)
        )
    both: tuple[Stream, ...] = ("appearance", "motion")
    spec = InputSpec(
        **backbones["appearance"].scale._asdict(),
        streams=both,
        size=size,
        resize=round(size * 256 / 224) if resize is None else resize,
        steps=steps,
        snippets=steps,
        flow_length=flow_length,
        flow_offset=-(flow_length // 2) if flow_offset is None else flow_offset,
        sampling="strided",
        stride=((1 if staged else 5) if min_stride is None else min_stride, max_stride),
        fps=fps,
        region=region,
    )
    connection = Connection(direction, place, operation)
    conv2, conv3, conv4, conv5 = (connection if stage in joined else UNCONNECTED for stage in STAGES)
    return STResNet(
        backbones["appearance"],
        backbones["motion"],
        spec=spec,
        num_classes=num_classes,
        connections=(conv2, conv3, conv4, conv5),
        temporal_pool=temporal_pool,
        temporal_pool_stride=temporal_pool_stride,
        dropout=dropout,
        motion_dropout=dropout if motion_dropout is None else motion_dropout,
        activation_checkpointing=activation_checkpointing,
    )


def _places(units: TemporalUnits, depth: int, builder: UnitBuilder) -> Callable[[int, int], UnitBuilder | None]:
    def unit_at(stage: int, unit: int) -> UnitBuilder | None:
        last = DEPTHS[depth][stage] - 1
        chosen = {"second": unit == 1, "last": unit == last, "all": unit > 0, "none": False}
        return builder if chosen[units] else None

    return unit_at


__all__ = ["STAGES", "JoinedStream", "STResNet", "TemporalStreams", "TemporalUnits", "st_resnet"]
