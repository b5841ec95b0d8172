"""The sources of the options (command line, file, environment), and their way to the workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.python.usage import UsageError

from twisted_beastws.service import worker
from twisted_beastws.service.config import ConfigError, Value, read_config
from twisted_beastws.service.faults import noted
from twisted_beastws.service.option_settings import OptionSettings
from twisted_beastws.service.option_table import FLAGS, ORIGIN_FLAGS, PARAMETERS, REPEATED
from twisted_beastws.service.option_values import backplane
from twisted_beastws.service.secrets import ENVIRONMENT, has_password

if TYPE_CHECKING:
    from twisted_beastws.service.sockets import HeldPort

WORKERS_OWN = ("config", "workers", "worker-timeout", "api")
"""Options that the workers' own command lines leave out."""


class OptionSources(OptionSettings):
    """Options of which each has a source. The command line takes precedence over the environment and the file.

    Attributes:
        command_line: its arguments.
        checker_descriptions: the values of ``--auth``.
        membership: this process's place among the workers; None if it is no worker.
        held: the listening ports that the workers share.
    """

    optFlags: ClassVar[list[list[Any]]] = FLAGS
    optParameters: ClassVar[list[list[Any]]] = PARAMETERS

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.command_line: list[str] = []
        self.checker_descriptions: list[str] = []
        self.membership = worker.membership
        self.held: list[HeldPort] = []
        self._from_file: set[str] = set()
        self._from_environment: set[str] = set()

    def read_environment(self) -> None:
        """Fill in the options that the command line left out. Raises ``UsageError``."""
        for option, variable in ENVIRONMENT.items():
            value = os.environ.get(variable)
            if not value or self.is_given(option):
                continue
            self._from_environment.add(option)
            with noted(option):
                try:
                    if option == "auth":
                        self._method(option)(value)
                    else:
                        self[option] = backplane(value)
                except UsageError as error:
                    raise UsageError(f"{variable}: {str(error).partition(': ')[2]}") from None

    def read_file(self, path: str) -> None:
        """Fill in the options that the command line and the environment left out. Raises ``UsageError``."""
        parameters = {row[0]: row[4] for row in self.optParameters if row[0] != "config"}
        methods = {name: self._method(name) for name in REPEATED}
        flags = [row[0] for row in self.optFlags]
        values: dict[str, list[Value]] = {}
        try:
            values = read_config(path, flags=flags, single=parameters, repeated=methods, report=_report)
        except ConfigError as error:
            _report(error)
        for key, given in values.items():
            if self.is_given(key):
                continue
            self._from_file.add(key)
            for value in given:
                with noted(key):
                    try:
                        if key in methods:
                            methods[key](value)
                        else:
                            self[key] = parameters[key](value) if key in parameters else value
                    except UsageError as error:
                        raise UsageError(f"--config={path}: {str(error).removeprefix('--')}") from None

    def is_given(self, option: str) -> bool:
        """Return whether any source has the option."""
        value = self[option]
        # A flag that is not given is 0, and so may be a number that is.
        return bool(value) if isinstance(value, list) or option in ORIGIN_FLAGS else value is not None

    def named(self, option: str) -> str:
        """Return the option as the user gave it: on the command line, in the file or in the environment."""
        if option in self._from_environment:
            return ENVIRONMENT[option]
        return f"--config={self['config']}: {option}" if option in self._from_file else f"--{option}"

    @property
    def visible(self) -> Sequence[str]:
        """The options that have a password on the command line."""
        given = [("auth", description) for description in self.checker_descriptions]
        if self["backplane"] is not None:
            given.append(("backplane", self["backplane"]))
        shown = {
            option
            for option, value in given
            if has_password(option, value) and any(value in argument for argument in self.command_line)
        }
        return sorted(shown)

    def worker_arguments(self) -> list[str]:
        """Return the command line for a worker, with the options of all sources."""
        single = [row[0] for row in self.optParameters if row[0] not in WORKERS_OWN]
        given: dict[str, list[Any]] = {name: [self[name]] for name in single if self[name] is not None}
        given |= {name: self.checker_descriptions if name == "auth" else self[name] for name in REPEATED}
        flags = [f"--{row[0]}" for row in self.optFlags if self[row[0]]]
        return [*flags, *(f"--{name}={value}" for name, values in given.items() for value in values)]

    def _method(self, option: str) -> Any:
        """Return the method that takes a value of a repeated option."""
        return getattr(self, f"opt_{option.replace('-', '_')}")


def _report(error: ConfigError) -> None:
    """Note a key of the file that cannot be used, or raise."""
    with noted():
        raise UsageError(f"--config={error}") from None
