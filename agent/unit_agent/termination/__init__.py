"""A host that EC2 is about to end: its units are moved away before it goes."""
