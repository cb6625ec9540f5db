"""`python -m edge_mnv2`, and the console script: signals are handled before anything else is imported."""

from __future__ import annotations

from edge_mnv2 import signals


def main() -> None:
    """The console script."""
    try:
        signals.from_now_on()
        # An import that is broken off leaves halves behind, and fails when it is begun again.
        with signals.put_off():
            from edge_mnv2.cli import app
        app.process()
    except KeyboardInterrupt:
        signals.ignore()
        from edge_mnv2.cli import app

        app.interrupted()


if __name__ == "__main__":
    main()
