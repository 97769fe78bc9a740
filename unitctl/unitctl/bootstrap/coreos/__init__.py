"""CoreOS's cloud-configs and what becomes of each of their keys."""
