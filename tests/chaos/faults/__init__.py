"""The faults, a file a family: how each begins and ends on a real cluster, and whom it may touch."""
