"""The Forelook language server. It never imports torch: the model lives in the backend."""
