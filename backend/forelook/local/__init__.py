"""Local resources: where a backend is found, started and reached. Standard library only."""
