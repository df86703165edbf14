"""STPN: appearance and motion fused in three levels, by compact bilinear operators, under one loss.

Wang, Long, Wang, Yu: Spatiotemporal Pyramid Network for Video Action Recognition, CVPR 2017.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from twostream.clip import InputSpec, Looking, ShapeError
from twostream.errors import UsageError
from twostream.layers.attention import AveragePooling, MaxPooling, SpatiotemporalAttention
from twostream.layers.compact_bilinear import (
    CompactBilinear,
    L2Scope,
    Normalization,
    in_full_precision,
    normalised,
)
from twostream.models.backbone import Backbone
from twostream.models.backbones import build_backbone
from twostream.models.contract import Normalise, VideoModel
from twostream.weights.inflate import first_layer
from twostream.weights.strict import load_strict

Join = Literal["stcb", "bilinear", "product", "concat", "sum", "max"]
TemporalFusion = Literal["stcb", "concat", "sum", "max"]
Attention = Literal["stcb", "concat", "appearance", "average", "max", "none"]
Top = Literal["stcb", "bilinear", "product", "concat", "sum"]

# The streams' own classifiers that may train beside the one on top, in the order of their votes.
AUXILIARY = ("appearance", "motion")


class BaseNetwork(nn.Module):
    """A stream's image network up to its last map.

    Shapes: (B, T, C, H, W) on the 0..255 scale -> (B T, C', h, w).
    """

    def __init__(self, backbone: Backbone, normalise: Normalise) -> None:
        super().__init__()
        self.normalise = normalise
        self.backbone = backbone
        self.channels = backbone.taps[-1].channels

    def forward(self, x: Tensor) -> Tensor:
        """The maps, the steps of a clip one after the other."""
        out: Tensor = self.backbone(self.normalise(x.flatten(0, 1)))
        return out


class Fusion(nn.Module):
    """m features into one, at every location: by STCB, or by what it is measured against.

    Shapes: m tensors (B, c_i) or (B, c_i, H, W) -> (B, channels) or (B, channels, H, W).

    Args:
        how: ``stcb``; ``bilinear`` for the outer product itself, of inputs projected to ``bilinear_size`` features each
            (learned, without bias); ``product``, ``sum`` or ``max`` entry by entry; ``concat`` one beside the other.
        in_channels: c_1 ... c_m.
        d: channels of ``stcb``.
        length: where products end with Euclidean length 1, a learnable factor that begins at this value: what a layer
            that learns at an ordinary rate wants of its input. None: no factor.
        seed, normalization, l2_scope, lean: see :class:`CompactBilinear`; the normalisation is that of ``stcb``,
            ``bilinear`` and ``product``.

    Raises:
        UsageError: inputs of different channels for what works entry by entry.
    """

    def __init__(
        self,
        how: Join,
        in_channels: Sequence[int],
        *,
        d: int,
        bilinear_size: int,
        length: float | None,
        seed: int,
        normalization: Normalization,
        l2_scope: L2Scope,
        lean: bool,
    ) -> None:
        super().__init__()
        self.how: Join = how
        self.normalization: Normalization = normalization
        self.l2_scope: L2Scope = l2_scope
        self.channels = in_channels[0]
        if how in ("product", "sum", "max") and len(set(in_channels)) > 1:
            raise UsageError(
                f"{how} joins features entry by entry and wants equal channels, got {tuple(in_channels)}; leave "
                "temporal_d out, or take stcb or concat"
            )
        if how == "stcb":
            self.channels = d
            self.stcb = CompactBilinear(
                in_channels, d, seed=seed, normalization=normalization, l2_scope=l2_scope, lean=lean
            )
        elif how == "bilinear":
            self.channels = bilinear_size ** len(in_channels)
            self.projections = nn.ModuleList(nn.Linear(c, bilinear_size, bias=False) for c in in_channels)
        elif how == "concat":
            self.channels = sum(in_channels)
        self.gain: nn.Parameter | None = None
        if length is not None and normalization == "signed_sqrt_l2" and how in ("stcb", "bilinear", "product"):
            self.gain = nn.Parameter(torch.tensor(length))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The fused feature or map."""
        match self.how:
            case "stcb":
                out: Tensor = self.stcb(*inputs)
            case "bilinear":
                projected = [layer(x) for layer, x in zip(self.projections, inputs, strict=True)]
                out = in_full_precision(self._multiplied, projected)
            case "product":
                out = in_full_precision(self._multiplied, inputs)
            case "concat":
                out = torch.cat(inputs, 1)
            case "sum":
                out = torch.stack(inputs).sum(0)
            case "max":
                out = torch.stack(inputs).amax(0)
        return out if self.gain is None else out * self.gain

    def _multiplied(self, *inputs: Tensor) -> Tensor:
        x = outer_product(inputs) if self.how == "bilinear" else torch.stack(inputs).prod(0)
        return normalised(x, self.normalization, len(inputs), l2_scope=self.l2_scope)


class SpatiotemporalPyramid(VideoModel):
    """The pyramid: snippets into one motion map; motion guides the look at the frame; all of it into one feature.

    Shapes: ``rgb`` (B, 1, 3, H, W), ``flow`` (B, S, 2L, H, W) -> (B, 1, K). In training with ``auxiliary`` above zero
    (B, 3, K): the votes of the streams' own classifiers follow, for the loss alone.

    Reference: Wang et al., CVPR 2017, architecture figure and algorithm 1; papers' sheet of STPN, sections 1 to 5.

    Args:
        appearance, motion: ending in maps of one size; all snippets go through the one motion network.
        temporal_fusion: of the S snippets' maps; None for a single snippet.
        attention: from both maps to one appearance feature (B, C); None: there is no such feature.
        top: of the pooled appearance, the attended appearance if there is one, and the pooled motion.
        hidden: width of a layer between the top and the classifier; None: there is none.
        dropout: before each fully connected layer.
        auxiliary: weight of the losses of the streams' own classifiers.
    """

    def __init__(
        self,
        appearance: Backbone,
        motion: Backbone,
        *,
        spec: InputSpec,
        num_classes: int,
        temporal_fusion: Fusion | None,
        attention: SpatiotemporalAttention | AveragePooling | MaxPooling | None,
        top: Fusion,
        hidden: int | None,
        dropout: float,
        auxiliary: float,
    ) -> None:
        super().__init__(
            spec=spec, votes=(("fused", 1),), num_classes=num_classes, backbone_identity=appearance.identity
        )
        self.appearance = BaseNetwork(appearance, Normalise(spec.rgb_mean, spec.rgb_std))
        self.motion = BaseNetwork(motion, Normalise(spec.flow_mean, spec.flow_std))
        self.temporal_fusion = temporal_fusion
        self.attention = attention
        self.top = top
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        if hidden is not None:
            layers += [nn.Linear(top.channels, hidden), nn.ReLU(), nn.Dropout(dropout)]
        classifier = nn.Linear(top.channels if hidden is None else hidden, num_classes)
        self.classifier = nn.Sequential(*layers, classifier)
        self.auxiliary: nn.ModuleDict | None = None
        if auxiliary:
            channels = (self.appearance.channels, temporal_fusion.channels if temporal_fusion else self.motion.channels)
            self.auxiliary = nn.ModuleDict(
                {
                    name: nn.Sequential(nn.Dropout(dropout), nn.Linear(c, num_classes))
                    for name, c in zip(AUXILIARY, channels, strict=True)
                }
            )
            self.vote_weights = (1.0, *(auxiliary for _ in AUXILIARY))
        for module in (classifier, *(self.auxiliary.modules() if self.auxiliary else ())):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def forward(self, rgb: Tensor, flow: Tensor) -> Tensor:
        """Logits (B, 1, K)."""
        self.check(rgb, flow)
        frame, motion = self.maps(rgb, flow)  # (B, C, h, w), (B, C', h, w)

        looks = [average(frame)]  # (B, C)
        if self.attention is not None:
            looks.append(self.attention(frame, motion))  # (B, C)
        fused = self.top(*looks, average(motion))  # (B, d)

        votes = [self.classifier(fused)]  # (B, K)
        if self.auxiliary is not None and self.training:
            votes += [self.auxiliary["appearance"](average(frame)), self.auxiliary["motion"](average(motion))]
        return torch.stack(votes, dim=1)  # (B, 1, K)

    def maps(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """The frame's map, and one motion map of all snippets."""
        frame = self.appearance(rgb)  # (B, C, h, w)
        snippets = self.motion(flow)  # (B S, C, h, w)
        if self.temporal_fusion is None:
            return frame, snippets
        by_clip = snippets.reshape(*flow.shape[:2], *snippets.shape[1:])  # (B, S, C, h, w)
        return frame, self.temporal_fusion(*by_clip.unbind(1))

    def attention_maps(self, rgb: Tensor, flow: Tensor) -> dict[str, Tensor]:
        """Named weights (B, h, w) over the frame, each summing to 1, for pictures; none without attention."""
        self.check(rgb, flow)
        if self.attention is None:
            return {}
        return {"attention": self.attention.weights(*self.maps(rgb, flow))}

    def check(self, rgb: Tensor, flow: Tensor) -> None:
        """Raise :class:`ShapeError` unless there is one frame and as many snippets as the fusion was built for."""
        super().check(rgb, flow)
        if rgb.shape[1] != 1 or flow.shape[1] != self.spec.snippets:
            raise ShapeError(
                f"{self.name or 'this network'} takes one frame and {self.spec.snippets} snippets of flow, "
                f"got {rgb.shape[1]} and {flow.shape[1]}"
            )

    def adapt(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The tensors as they are.

        Raises:
            UsageError: fusions of the same size that were drawn with another ``hash_seed``: what was learned above them
                means nothing under other hashes, and with theirs the network would not be the one that was asked for.
        """
        for name, own in self.named_modules():
            hashes, size = (state.get(f"{name}.{of}") for of in ("hashes", "size"))
            if not isinstance(own, CompactBilinear) or hashes is None or size is None:
                continue
            of_one_size = hashes.shape == own.hashes.shape and size == own.size
            if of_one_size and not hashes.equal(own.hashes):
                raise UsageError(
                    f"the hashes of {name} were drawn with another hash_seed than this network's "
                    f"({self.numbers['hash_seed']}); give the hash_seed of the run it starts from, or start from its "
                    "streams"
                )
        return super().adapt(state)

    def load_backbones(self, state: Mapping[str, Tensor], *, source: str) -> str:
        """The frame's network takes the weights as they are, the flow's with its first layer spread over 2L channels.

        Reference: Wang et al., Temporal Segment Networks, ECCV 2016, section 3.2 (cross modality pre-training).
        """
        load_strict(self.appearance.backbone, state, source=source)
        motion = self.motion.backbone
        inflated = first_layer(state, motion.in_channels, name=motion.first_layer)
        load_strict(motion, inflated, source=source)
        return (
            "appearance as it is, motion with the first layer averaged over colour and repeated "
            f"{motion.in_channels} times"
        )


def average(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C)."""
    return x.mean((2, 3))


def outer_product(inputs: Sequence[Tensor]) -> Tensor:
    """All products of one entry of each input (B, c_i), the last index running fastest: (B, c_1 ... c_m)."""
    out = inputs[0]
    for x in inputs[1:]:
        out = (out[:, :, None] * x[:, None]).flatten(1)
    return out


def st_pyramid(
    backbone: str,
    *,
    num_classes: int,
    snippets: int = 3,
    temporal_fusion: TemporalFusion = "stcb",
    attention: Attention = "stcb",
    top: Top = "stcb",
    temporal_d: int | None = None,
    attention_d: int = 2048,
    top_d: int = 4096,
    attention_hidden: int = 64,
    bilinear_size: int = 16,
    hidden: int | None = None,
    normalization: Normalization = "signed_sqrt_l2",
    l2_scope: L2Scope = "location",
    length: float = 16.0,
    hash_seed: int = 0,
    lean: bool = False,
    dropout: float = 0.5,
    auxiliary: float = 0.0,
    min_stride: int = 1,
    max_stride: int = 10,
    test_stride: int | None = None,
    min_spread: float | None = None,
    max_spread: float | None = None,
    rgb_offset: int = 0,
    size: int = 224,
    resize: int | None = None,
    flow_length: int = 10,
    flow_offset: int = 0,
    fps: float | None = None,
    region: Looking = "frame",
    **backbone_numbers: Any,
) -> SpatiotemporalPyramid:
    """STPN; the defaults are the paper's figure, and for its open points the readings of the papers' sheet.

    One level of the pyramid is taken away by ``snippets=1`` (no temporal fusion), ``attention="none"`` (two inputs at
    the top) or ``top="concat"`` (nothing but a linear classifier on the pooled features). So that one set of numbers
    serves such comparisons, those of an operator that is not chosen are not looked at: ``temporal_d``, ``attention_d``
    and ``top_d`` but for ``stcb``, ``bilinear_size`` but for ``bilinear``, ``length`` and ``l2_scope`` but for
    ``signed_sqrt_l2``.

    Args:
        backbone: a name of ``models.backbones.BACKBONES``.
        num_classes: K.
        snippets: 2T+1 stacks of flow, an odd number.
        temporal_fusion: of the snippets' maps, per location.
        attention: what the weights are computed from: ``stcb`` or ``concat`` of both maps, or the ``appearance`` alone;
            ``average`` and ``max`` pool without weights; ``none`` leaves the attended feature out.
        top: how the pooled features are joined: ``stcb``, ``concat``, ``sum``, ``product``, or ``bilinear``, the outer
            product of ``bilinear_size`` learned projections of each.
        temporal_d: channels of the fused motion map; None: as many as the backbone has.
        attention_d: of the fusion inside the attention.
        top_d: of the fusion on top.
        attention_hidden: channels between the attention's convolutions; the paper's are unknown, 512 in MCB.
        bilinear_size: features of each input of an exact outer product, which has that to the power of their number.
        hidden: width of a fully connected layer before the classifier; None: the classifier alone.
        normalization: after every fusion by products: ``signed_sqrt_l2``, ``signed_sqrt``, ``signed_root``, or
            ``none`` as the paper's algorithm is printed, whose numbers grow too large to train at ordinary rates.
        l2_scope: of the Euclidean length: each ``location``, or the whole ``sample``.
        length: begin of the learnable length that normalised features have in front of learned layers.
        hash_seed: of all hashes; every fusion has its own.
        lean: keep nothing but their inputs for the fusions' backward pass: less memory, a little slower.
        dropout: before each fully connected layer.
        auxiliary: weight of losses on the streams' own classifiers; 0: the paper's one loss.
        min_stride, max_stride: frames between snippets, drawn in training.
        test_stride: the same at test time; None: the middle of both.
        min_spread, max_spread: given, snippets lie over this share of each clip, however long, and not at strides.
        rgb_offset: the frame shown, counted from the middle snippet's first; the paper's figures say 0 and 5. Near a
            video's ends the snippets are moved inwards and the frame is not.
        size: side of the training crop in px.
        resize: stored short side in px; None: 8/7 of ``size``.
        flow_length: L, fields per stack.
        flow_offset: first field of the middle snippet relative to the frame that a clip is drawn at.
        fps: common frame rate; None: each video's own.
        region: what crops are taken from: all of the ``"frame"``, or where in it the ``"motion"`` is.
        backbone_numbers: the backbone's own, for both streams.

    Raises:
        UsageError: a number out of range, or numbers that contradict each other.
    """
    if snippets < 1 or snippets % 2 == 0:
        raise UsageError(f"snippets lie around the frame: their number is odd, 1, 3, 5 ..., got {snippets}")
    if (min_spread is None) != (max_spread is None):
        raise UsageError(f"min_spread and max_spread go together, got {min_spread} and {max_spread}")
    if test_stride is not None and min_spread is not None:
        raise UsageError(
            f"test_stride ({test_stride}) is a distance in frames, and min_spread and max_spread say that snippets lie "
            "over a share of the clip: leave one of them out"
        )
    if not 0 <= dropout < 1:
        raise UsageError(f"dropout is the share of features set to zero, at least 0 and below 1, got {dropout}")
    for name, value, least in (
        ("attention_hidden", attention_hidden, 1),
        ("bilinear_size", bilinear_size, 1),
        ("hidden", 1 if hidden is None else hidden, 1),
        ("auxiliary", auxiliary, 0),
        ("length", length, 0),
    ):
        if value < least:
            raise UsageError(f"{name} is at least {least}, got {value}")

    appearance = build_backbone(backbone, **backbone_numbers)
    motion = build_backbone(backbone, in_channels=2 * flow_length, **backbone_numbers)
    spec = InputSpec(
        **appearance.scale._asdict(),
        streams=("appearance", "motion"),
        size=size,
        resize=round(size * 256 / 224) if resize is None else resize,
        steps=1,
        snippets=snippets,
        flow_length=flow_length,
        flow_offset=flow_offset,
        sampling="snippets",
        stride=(min_stride, max_stride),
        test_stride=test_stride,
        spread=None if min_spread is None or max_spread is None else (min_spread, max_spread),
        rgb_offset=rgb_offset,
        fps=fps,
        region=region,
    )

    def fusion(how: Join, level: int, in_channels: Sequence[int], d: int, *, learned_after: bool) -> Fusion:
        return Fusion(
            how,
            in_channels,
            d=d,
            bilinear_size=bilinear_size,
            length=length if learned_after else None,
            # Hashes of one seed would be the same in all three, and their errors of one kind.
            seed=3 * hash_seed + level,
            normalization=normalization,
            l2_scope=l2_scope,
            lean=lean,
        )

    C = appearance.taps[-1].channels
    # To a product that is normalised itself the scale of what goes into it does not matter.
    scale_matters = top in ("concat", "sum") or attention == "concat" or bool(auxiliary)
    level_1 = None
    if snippets > 1:
        d = C if temporal_d is None else temporal_d
        level_1 = fusion(temporal_fusion, 0, (C,) * snippets, d, learned_after=scale_matters)
    motion_channels = C if level_1 is None else level_1.channels
    level_2: SpatiotemporalAttention | AveragePooling | MaxPooling | None = None
    match attention:
        case "stcb" | "concat":
            both = fusion(attention, 1, (C, motion_channels), attention_d, learned_after=True)
            level_2 = SpatiotemporalAttention(both, both.channels, hidden=attention_hidden)
        case "appearance":
            level_2 = SpatiotemporalAttention(First(), C, hidden=attention_hidden)
        case "average":
            level_2 = AveragePooling()
        case "max":
            level_2 = MaxPooling()
    pooled = (C, motion_channels) if level_2 is None else (C, C, motion_channels)
    return SpatiotemporalPyramid(
        appearance,
        motion,
        spec=spec,
        num_classes=num_classes,
        temporal_fusion=level_1,
        attention=level_2,
        top=fusion(top, 2, pooled, top_d, learned_after=True),
        hidden=hidden,
        dropout=dropout,
        auxiliary=auxiliary,
    )


class First(nn.Module):
    """The first of two maps, where attention shall not see the motion."""

    def forward(self, appearance: Tensor, motion: Tensor) -> Tensor:
        """``appearance``."""
        del motion
        return appearance


__all__ = ["BaseNetwork", "Fusion", "SpatiotemporalPyramid", "outer_product", "st_pyramid"]
