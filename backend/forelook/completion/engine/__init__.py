"""The engine: one thread that owns model, KV caches and pools."""
