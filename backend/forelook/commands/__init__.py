"""What the subcommands of ``forelook`` do; arguments and environment reach them from ``forelook.cli`` alone."""
