"""Models in GGUF files: header, configuration, vocabulary and weights."""
