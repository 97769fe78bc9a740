"""The supervisor: one small process per unit of the `process` driver, built on the standard library alone.

It starts, watches, restarts and stops one unit, owns its output, and outlives the agent. The driver writes
`order.json` into the unit's directory, takes its lock, and starts `start.py` by path with `python -I -S`; so
that hundreds fit on a host, nothing here imports more than it must (no json, socket, subprocess, signal,
logging, dataclasses, re or typing at run time: each costs 0.5 to 1.5 MB). The same holds for what it shares with
the core, `unitfleet.quoting` and `unitfleet.environment`.
"""
