"""``python -m apq_moo`` is ``apq-moo``."""

from apq_moo.cli import main

main()
