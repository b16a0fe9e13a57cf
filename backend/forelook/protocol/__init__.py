"""What the backend and its clients say to each other: messages and their JSON. Standard library only."""
