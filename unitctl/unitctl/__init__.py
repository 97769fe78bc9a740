"""unitctl: the command line of Unitfleet."""
