"""Attacks on the running parts, as tests."""
