"""Networks by name."""

from twostream.models.backbone import Backbone, Tap
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
    "MODELS",
    "Backbone",
    "ModelEntry",
    "ModelRow",
    "Tap",
    "VideoModel",
    "create_model",
    "describe_models",
    "known_numbers",
    "list_models",
]
