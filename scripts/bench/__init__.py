"""What the executables of ``scripts/`` share: workloads, methods, timing, provenance and the LSP client."""
