"""The errors that a user can do something about.

EmbedkitError
├── CheckpointError       a model folder is missing something or holds something else
├── RecordError           an input file or one of its lines cannot be read
├── ConfigError           a configuration file has an unknown key, or a value that its option does not take
├── RecipeError           a training recipe has an unknown key or a value out of range
├── OutputError           a result cannot be written where it was asked for
├── IndexFileError        an index is missing, damaged, busy or of another format version
│   └── IndexBusyError    another process writes to it
├── IndexMismatchError    vectors or a model do not fit the index
├── StoreError            a store cannot be reached, refuses, or holds what does not fit
├── FilterError           a `--where` expression cannot be understood
├── EvaluationError       judgements and runs do not fit together
├── TrainingError         a run cannot start, go on or be resumed
├── ServerError           a server cannot be reached, or refuses what it was asked
├── DeviceError           a device or a precision is not available here
└── MissingExtraError     an optional package is not installed

Each message is a sentence in four parts: where, what we got, what we wanted, what to do.
A mistake of the programmer stays a ValueError or a TypeError.
"""


class EmbedkitError(Exception):
    """What the command line reports as `error: …` with exit code 1.

    `option` ends the message with an option that helps, too. Not every command that may fail so has it, so it is kept apart.
    """

    def __init__(self, message: str = "", option: str = "") -> None:
        super().__init__(message + option)
        self.message, self.option = message, option


class CheckpointError(EmbedkitError):
    """A model folder is missing something or holds something else."""


class RecordError(EmbedkitError):
    """An input file or one of its lines cannot be read."""


class ConfigError(EmbedkitError):
    """A configuration file has an unknown key, or a value that its option does not take."""


class RecipeError(EmbedkitError):
    """A training recipe has an unknown key or a value out of range."""


class OutputError(EmbedkitError):
    """A result cannot be written where it was asked for."""


class IndexFileError(EmbedkitError):
    """An index is missing, damaged, busy or of another format version."""


class IndexBusyError(IndexFileError):
    """Another process writes to an index."""


class IndexMismatchError(EmbedkitError):
    """Vectors or a model do not fit the index."""


class StoreError(EmbedkitError):
    """A store cannot be reached, refuses, or holds what does not fit."""


class FilterError(EmbedkitError):
    """A `--where` expression cannot be understood."""


class EvaluationError(EmbedkitError):
    """Judgements and runs do not fit together."""


class TrainingError(EmbedkitError):
    """A run cannot start, go on or be resumed."""


class DeviceError(EmbedkitError):
    """A device or a precision is not available here."""


class ServerError(EmbedkitError):
    """A server cannot be reached, or refuses what it was asked."""


class MissingExtraError(EmbedkitError):
    """An optional package is not installed."""
