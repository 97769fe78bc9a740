"""The verbs of unitctl, one file each."""
