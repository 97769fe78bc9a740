"""What is seen from outside: every Engine's events, /proc, the store's history. Never our own status."""
