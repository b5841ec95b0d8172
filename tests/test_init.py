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
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(twisted_beastws, name) is not None


def test_any_other_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'websocket'"):
        twisted_beastws.websocket  # noqa: B018


def test_the_names_of_functions_are_not_modules_once_these_are_imported() -> None:
    import twisted_beastws.client.connect
    import twisted_beastws.client.reconnecting

    assert callable(twisted_beastws.reconnecting) and callable(twisted_beastws.connect)


def test_importing_it_is_light() -> None:
    statements = "import json, sys, twisted_beastws; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", statements], capture_output=True, check=True, text=True, timeout=60)
    modules = json.loads(done.stdout)
    assert not LATER.intersection(modules)
    assert len([module for module in modules if module.startswith("twisted_beastws")]) <= 88
