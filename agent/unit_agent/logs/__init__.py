"""The output of units: collected, kept on this host in bounded segments, and shipped to sinks."""
