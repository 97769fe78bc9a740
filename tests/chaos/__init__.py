"""Faults on a real cluster, and an outside witness that says whether the promises held."""
