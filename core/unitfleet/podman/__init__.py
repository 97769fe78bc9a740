"""What Podman's Quadlet would make of a file: pure functions, so that our reading can be held against its own."""
