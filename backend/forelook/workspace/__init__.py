"""What a workspace teaches: its n-gram pool and the cache that keeps it."""
