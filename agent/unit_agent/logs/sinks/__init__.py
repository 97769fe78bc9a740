"""Where the lines of units are shipped to: one module a kind of sink, behind one protocol (`sink.Sink`)."""
