"""What a trained network looked at and what spoke for its answer: arrays on disk, which the report draws."""

from twostream.explain.attention import Explanation, explain_attention
from twostream.explain.attribution import Attributed, explain_attribution
from twostream.explain.attributor import Attributor

__all__ = ["Attributed", "Attributor", "Explanation", "explain_attention", "explain_attribution"]
