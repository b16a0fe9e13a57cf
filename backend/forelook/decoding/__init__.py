"""Token-level decoding: loops, drafts and verification. Knows no text, no file, no socket."""
