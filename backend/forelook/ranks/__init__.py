"""Processes that decode together with this one (lookahead parallelism)."""
