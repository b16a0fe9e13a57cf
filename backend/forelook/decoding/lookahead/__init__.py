"""The lookahead window, and lookahead decoding as published."""
