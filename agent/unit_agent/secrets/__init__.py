"""Secrets of units on this machine: what was sealed for it, and the files in memory that units get."""
