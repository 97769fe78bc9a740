"""The master: serves the API from a watch cache; the elected leader decides placements."""
