"""Training of the starter model: corpus, infill samples, network, optimizer, loop, held-out loss."""
