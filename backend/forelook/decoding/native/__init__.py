"""Scans of logits in C, compiled on the machine that runs them, with the results of the Python module."""
