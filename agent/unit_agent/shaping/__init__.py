"""Bandwidth: the `shaping` duty, which keeps limits and guarantees of units in the host's qdiscs."""
