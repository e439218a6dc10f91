"""The app with all its commands, which register themselves."""

from functools import cache
from typing import Any

from typer.main import get_command

from apq_moo.cli import (  # noqa: F401
    bench_commands,
    compare_command,
    comparison_commands,
    data_commands,
    deploy_commands,
    hardware_commands,
    measuring_commands,
    pipeline_commands,
    planning_commands,
    predictor_commands,
    run_commands,
    samples_commands,
    space_commands,
    train_commands,
    tuning_commands,
    watch_command,
)
from apq_moo.cli.app import app

__all__ = ["app", "command"]


@cache
def command() -> Any:
    """All commands, ready to be called.

    They are made once in a process: typer reads the signature of each for it, which takes as long
    as many a command.
    """
    return get_command(app)
