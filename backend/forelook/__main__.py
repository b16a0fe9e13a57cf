"""``forelook`` and ``python -m forelook``, and with it ``torchrun -m forelook``."""

import sys

from forelook.import_path import leave_out_working_folder


def main() -> int:
    """Run the command, with no module of the working folder in place of another."""
    leave_out_working_folder()
    from forelook.commands.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
