"""Every error that autotune raises on purpose.

AutotuneError
├── UserError          the request cannot be carried out as typed; the message names the cure
│   └── ConfigError    a knob, a value or a combination of knobs that no engine can run
├── DataError          a file or a store that cannot be used as it is
│   ├── GGUFError      not a GGUF file, or a damaged one
│   └── SchemaError    a database of another revision than this program's
└── WorkFailedError    the request was fine, the work did not succeed
    ├── MeasurementError   a run that had to succeed did not
    └── NothingFitsError   no configuration fits the constraints

A trial that fails inside a study is not an exception: it is a row with a reason.
"""

from __future__ import annotations


class AutotuneError(Exception):
    """The root: whatever autotune raises on purpose is one of these. One line of text."""


class UserError(AutotuneError, ValueError):
    """The request cannot be carried out as typed. The message ends with what to do."""


class ConfigError(UserError):
    """A knob, a value or a combination of knobs that no engine can run."""


class DataError(AutotuneError):
    """A file or a store that cannot be used as it is."""


class GGUFError(DataError):
    """Not a GGUF file, or a damaged one."""


class SchemaError(DataError):
    """A database of another revision than this program's."""


class WorkFailedError(AutotuneError, RuntimeError):
    """The request was fine, the work did not succeed."""


class MeasurementError(WorkFailedError):
    """A run that had to succeed did not."""


class NothingFitsError(WorkFailedError):
    """No configuration fits the constraints."""
