"""Forelook: private code completion with lookahead decoding.

Importing this package never imports torch, so that the language server stays light.
"""

__version__ = "0.1.0"
