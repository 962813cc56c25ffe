"""Runs the command line for `python -m atomicpath_cli`."""

from atomicpath_cli import main

if __name__ == "__main__":
    main()
