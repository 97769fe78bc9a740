"""The HTTP API that every master serves, from its own cache (docs/api.md)."""
