"""The app with all its commands, which register themselves."""

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

__all__ = ["app"]
