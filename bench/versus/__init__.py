"""Unitfleet beside what it is compared with: the Docker Engine alone, and Docker Swarm mode, on the same hosts."""
