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


def test_an_import_loads_few_modules() -> None:
    statements = "import json, sys, twisted_beastws; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, check=True, text=True, timeout=60)
    modules = json.loads(done.stdout)
    assert not LATER.intersection(modules)
    assert len([module for module in modules if module.startswith("twisted_beastws")]) <= 93
