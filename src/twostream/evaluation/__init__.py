"""From a model and videos to scores, and from scores to figures."""
