"""Which files may be read: ignore files, secret-bearing names, the user's globs. Standard library only."""
