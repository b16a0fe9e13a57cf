"""The subcommands of ``forelook``; only ``cli.py`` reads arguments and the environment."""
