"""`python -m mailstack` is the `mailstack` command."""

from mailstack.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
