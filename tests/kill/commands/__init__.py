"""The commands that are killed. One more is an entry of a list here, in the file of its subject."""

from kill.commands.command import Command
from kill.commands.evaluation import EVALUATION
from kill.commands.models import MODELS
from kill.commands.training import TRAINING

COMMANDS: dict[str, Command] = {command.name: command for command in (*TRAINING, *MODELS, *EVALUATION)}
"""By name, in the order of the table."""

__all__ = ["COMMANDS", "Command"]
