"""The configuration file a command is given."""

from __future__ import annotations

from gip_resilience.cli.output import CommandError
from gip_resilience.config import Config, ConfigError


def load(path: str) -> Config:
    """The configuration in a file.

    Raises:
        CommandError: it cannot be read, or something in it is wrong.
    """
    try:
        return Config.load(path)
    except ConfigError as problem:
        raise CommandError(str(problem)) from None
    except OSError as problem:
        raise CommandError(f"{path}: {problem.strerror or problem}") from None
