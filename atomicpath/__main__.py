"""Runs the command line for `python -m atomicpath`."""

if __name__ == "__main__":
    from atomicpath.cli import main

    main()
