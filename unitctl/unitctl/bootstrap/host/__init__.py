"""What a host makes of itself at its boot: facts, a decision with reasons, and the hands that carry it out."""
