"""Copies that failed for good, kept as they were for a look (`OnFailure=keep`)."""
