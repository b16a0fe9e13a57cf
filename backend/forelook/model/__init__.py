"""Weights, forward passes, tokenizers and prompt formats. Knows no editor."""
