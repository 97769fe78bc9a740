"""The central search: what agents shipped to this master, kept for a while, and found again."""
