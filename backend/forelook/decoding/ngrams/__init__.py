"""The n-gram pool: index, lookup and ranking."""
