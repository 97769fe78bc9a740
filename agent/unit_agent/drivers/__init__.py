"""How an agent runs a unit: one protocol, a module or package for each driver."""
