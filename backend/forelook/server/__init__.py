"""The websocket server and its wire messages."""
