"""`python -m edge_mnv2`."""

from edge_mnv2.cli.app import process

if __name__ == "__main__":
    process()
