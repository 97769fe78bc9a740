"""Secrets of units: kept sealed to the masters, sealed anew for the machines whose units need them."""
