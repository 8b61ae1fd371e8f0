"""The ``autotune`` command, also as ``python -m autotune``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; Ctrl-C is silent even while it is still being imported."""
    try:
        from autotune.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
