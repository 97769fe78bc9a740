"""What makes a host a member of a fleet: user-data for cloud-init, and what a host does with it at its boot."""
