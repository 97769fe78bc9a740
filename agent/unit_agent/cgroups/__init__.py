"""What the kernel counts for a copy: one protocol over control groups v1 and v2."""
