"""`python -m edge_mnv2`."""

from edge_mnv2.cli.app import main

if __name__ == "__main__":
    main()
