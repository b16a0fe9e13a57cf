"""From document and cursor to suggestion. Knows no socket."""
