"""`python -m stepreward`: the command line."""

from __future__ import annotations

from stepreward.cli.app import main

if __name__ == "__main__":
    main()
