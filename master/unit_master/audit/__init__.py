"""Who changed what: written to this master's disk before the answer, read over all masters."""
