"""Drafts: sources, the tree they are merged into, and how much of it a step can carry."""
