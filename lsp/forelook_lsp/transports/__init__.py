"""How LSP messages travel: standard streams and websockets."""
