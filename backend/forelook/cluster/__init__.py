"""Several replicas of the backend behind one address, on Ray Serve (extra ``forelook[cluster]``)."""
