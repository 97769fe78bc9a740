"""Whether copies are well: what `Check=` asks, and what follows from the answers."""
