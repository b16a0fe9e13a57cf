"""The forward pass: plain, on a CPU's prepared tensors, and captured on a GPU."""
