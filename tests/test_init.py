"""Tests of ``import twisted_beastws``: its public names, and the modules that it does not load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import twisted_beastws

LATER = {
    "twisted.internet.reactor",
    "twisted.web.server",
    "twisted.web.resource",
    "twisted.application.internet",
    "twisted.internet.ssl",
    "OpenSSL",
    "twisted_beastws.client.connect",
    "twisted_beastws.web.resource",
    "twisted_beastws.testing",
}


@pytest.mark.parametrize("name", twisted_beastws.__all__)
def test_each_public_name_can_be_imported(name: str) -> None:
    assert getattr(twisted_beastws, name) is not None


def test_another_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'websocket'"):
        twisted_beastws.websocket  # noqa: B018


def test_a_function_keeps_its_name_once_a_module_of_that_name_is_imported() -> None:
    import twisted_beastws.client.connect
    import twisted_beastws.client.reconnecting

    assert callable(twisted_beastws.reconnecting) and callable(twisted_beastws.connect)


def modules_after(statement: str) -> list[str]:
    """Return the names of the modules that a new process has loaded after the statement."""
    statements = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, check=True, text=True, timeout=60)
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_an_import_loads_few_modules() -> None:
    modules = modules_after("import twisted_beastws")
    assert not LATER.intersection(modules)
    assert len([module for module in modules if module.startswith("twisted_beastws")]) <= 93


def test_a_service_loads_no_backplane_and_no_cryptography_before_it_knows_its_options() -> None:
    modules = modules_after("import twisted_beastws.service.maker")
    later = {"cryptography", "twisted_beastws.hub.postgres", "twisted_beastws.hub.redis", "twisted_beastws.hub.linked"}
    assert not later.intersection(modules)
