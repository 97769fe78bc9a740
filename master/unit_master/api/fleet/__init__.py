"""fleet's HTTP API v1, for clients that were written for fleet (docs/from-fleet.md, "The API")."""
