"""What a machine and its copies use: host figures, copies' figures, the disk guard, and the duty that tells."""
