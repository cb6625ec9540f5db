"""The faulty server of the zoo's tests, for commands that download."""

from tests.zoo.conftest import body, server

__all__ = ["body", "server"]
