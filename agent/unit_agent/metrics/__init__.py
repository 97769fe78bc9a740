"""What an agent tells Prometheus."""
