"""What a setting is; ``forelook.config`` is the table of them."""
