"""The images of this host: what is pulled, when, in which order, and what is removed again."""
