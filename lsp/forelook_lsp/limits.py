"""What a language server accepts from its editors. Chosen, not measured, unless a line says otherwise."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 256 * 2**20
MAX_CONNECTIONS = 64
IDLE_CONNECTION_S = 60.0
"""A websocket without a message for this time makes room when all connections are taken."""

WINDOW_DOCUMENT_BYTES = 128 * 2**20
"""Memory for the texts and line tables of one window's documents."""
DOCUMENT_BYTES = 256 * 2**20
"""The same for all windows of the process."""

MAX_UNHANDLED_BYTES = 16 * 2**20
"""What is read from standard input before the messages in it are handled."""
MAX_UNSENT_CHARS = 96 * 2**20
"""Messages that the backend has not read; more than its budget for the documents of one user."""

TRIM_MESSAGE_BYTES = 2**20
"""A message from this size on may leave freed memory behind."""
TRIM_AFTER_S = 2.0
"""Time until that is returned to the system."""
