"""Decode steps of a CPU in one call of C, compiled on the machine that runs them."""
