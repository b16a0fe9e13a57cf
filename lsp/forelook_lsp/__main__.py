"""``forelook-lsp`` and ``python -m forelook_lsp``."""

import sys

from forelook.import_path import leave_out_working_folder


def main() -> int:
    """Run the command, with no module of the working folder in place of another."""
    leave_out_working_folder()
    from forelook_lsp.command_line import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
