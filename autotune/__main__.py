"""``python -m autotune`` is the ``autotune`` command."""

from __future__ import annotations

from autotune.cli.main import main

main()
