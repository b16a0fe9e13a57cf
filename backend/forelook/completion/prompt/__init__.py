"""From a document to the prompt's tokens."""
