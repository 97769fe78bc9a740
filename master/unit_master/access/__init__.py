"""Who asks the API, what they may do, and how much of it."""
