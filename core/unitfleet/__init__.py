"""The core of Unitfleet: words, values, keys and the store that master, agent and unitctl share."""

__version__ = "0.1.0"
