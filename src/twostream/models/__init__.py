"""Networks by name."""

from twostream.models.backbone import Backbone, Tap
from twostream.models.backbones import BACKBONES, build_backbone
from twostream.models.contract import VideoModel
from twostream.models.registry import (
    MODELS,
    ModelEntry,
    ModelRow,
    create_model,
    describe_models,
    known_numbers,
    list_models,
)

__all__ = [
    "BACKBONES",
    "MODELS",
    "Backbone",
    "ModelEntry",
    "ModelRow",
    "Tap",
    "VideoModel",
    "build_backbone",
    "create_model",
    "describe_models",
    "known_numbers",
    "list_models",
]
