"""``--check-config``: read everything that the options name, and list the faults."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.python.usage import UsageError

from twisted_beastws.server.gates.passwords import PasswordFile
from twisted_beastws.server.observers.access_log import STANDARD_OUTPUT
from twisted_beastws.service.dangers import dangers
from twisted_beastws.service.faults import collecting


def check(options: Any, arguments: Sequence[str]) -> int:
    """Print a line for each fault in a command line, or the warnings of the start; return the exit status."""
    with collecting() as faults:
        try:
            options.parseOptions(arguments)
        except UsageError as error:
            faults.lines.append(str(error))
        else:
            faults.lines.extend(_faults_beyond(options))
    if faults.lines:
        print("\n".join(faults.lines))
        return 1
    for danger in dangers(options):
        print(f"warning: {danger}")
    print("The configuration is in order")
    return 0


def _faults_beyond(options: Any) -> Iterator[str]:
    """The faults in files and endpoints that parsing does not show."""
    found = [("listen", *each) for each in options.endpoints]
    found += [(option, *each) for option, each in (("admin", options.admin), ("api", options.api)) if each]
    for option, description, endpoint in found:
        why = _why_unusable(endpoint)
        if why is not None:
            yield f"{options.named(option)}={description}: {why}"
    for checker in options["auth"]:
        if isinstance(checker, PasswordFile):
            yield from (f"{options.named('auth')}=file: {fault}" for fault in checker.faults())
    if options.access_log is not None and (why := _why_unwritable(options.access_log.path)) is not None:
        yield f"{options.named('access-log')}={options.access_log.path}: {why}"


def _why_unusable(endpoint: Any) -> str | None:
    try:
        endpoint.check()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except Exception as error:
        return " ".join(str(error).split())
    return None


def _why_unwritable(path: str) -> str | None:
    folder = os.path.dirname(path)
    if path == STANDARD_OUTPUT:
        return None
    if os.path.isdir(path):
        return "it is a directory"
    if not os.path.isdir(folder):
        return f"there is no directory {folder}"
    return None if os.access(path if os.path.exists(path) else folder, os.W_OK) else "this user cannot write it"
