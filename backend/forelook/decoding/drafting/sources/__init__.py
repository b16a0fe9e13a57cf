"""Draft sources: one file each."""
