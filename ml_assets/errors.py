"""Errors that a person can act on. Everything else that is raised is a bug, and shows where it comes from.

A module with an error that callers tell apart derives a class of its own; the others raise one of the three below.
They are also the built-in errors of their kind, for callers that do not know this project.
"""

from __future__ import annotations


class ActionableError(Exception):
    """An error that says what is wrong, where, and what to do about it.

    `what` may say all three; `where` (a file, a line, a use case) is put before it and `to_do` behind it.
    """

    def __init__(self, what: str = "", *, where: str = "", to_do: str = "") -> None:
        self.what = what
        self.where = where
        self.to_do = to_do
        super().__init__((f"{where}: " if where else "") + what + (f"; {to_do}" if to_do else ""))

    def __str__(self) -> str:
        """Return the whole text, also where the built-in class would quote it."""
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the whole text and the parts: it crosses processes."""
        return (_again, (type(self), self.args, self.__dict__))


class InputError(ActionableError, ValueError):
    """A value, file or option is not what it has to be."""


class NotFoundError(ActionableError, LookupError):
    """What was named is not there."""


class StateError(ActionableError, RuntimeError):
    """What was asked for cannot be done as things stand."""


def _again(error_class: type[ActionableError], texts: tuple[str, ...], parts: dict[str, object]) -> ActionableError:
    error = error_class.__new__(error_class)
    error.args = texts
    error.__dict__.update(parts)
    return error
