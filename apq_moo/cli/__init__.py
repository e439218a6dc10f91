"""The ``apq-moo`` command: parses, calls one function of the library for each command, prints.

Nothing heavy is imported before a command needs it, so that ``--help`` answers at once.
"""

from apq_moo.cli.entry import main

__all__ = ["main"]
