"""The lookup in C, compiled on the machine that runs it, with the results of the Python modules to the bit."""
