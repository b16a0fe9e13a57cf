"""Which suggestion is shown, and what became of it. No I/O; the clock is passed in."""
