"""Building blocks that the papers add to image networks."""
