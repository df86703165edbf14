"""Building blocks that the papers add to image networks."""

from twostream.layers.compact_bilinear import CompactBilinear, without_fft

__all__ = ["CompactBilinear", "without_fft"]
