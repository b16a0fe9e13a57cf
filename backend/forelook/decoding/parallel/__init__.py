"""Lookahead parallelism: one step split across several ranks."""
