"""Two-stream action recognition in video: raw files to flow, trained model, honest score, prediction and report."""

import importlib
from typing import TYPE_CHECKING, Any

from twostream.version import __version__

if TYPE_CHECKING:
    from twostream.clip import Clip, InputSpec, Scores
    from twostream.errors import TwostreamError
    from twostream.models import create_model, list_models
    from twostream.prediction import Predictor

# Names are fetched when first used, so that `import twostream` loads no torch.
_HOMES = {
    "Clip": "twostream.clip",
    "InputSpec": "twostream.clip",
    "Predictor": "twostream.prediction",
    "Scores": "twostream.clip",
    "TwostreamError": "twostream.errors",
    "create_model": "twostream.models",
    "list_models": "twostream.models",
}

__all__ = [
    "Clip",
    "InputSpec",
    "Predictor",
    "Scores",
    "TwostreamError",
    "__version__",
    "create_model",
    "list_models",
]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'twostream' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
