"""Published weights: where they are, how they map onto our names and shapes."""
