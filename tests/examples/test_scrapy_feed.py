"""The example scrapy_feed.py, with live_feed.py as its server."""

from __future__ import annotations

import json
from pathlib import Path

from .processes import Example, run


def test_the_spider_yields_the_measurements_of_the_feed(tmp_path: Path) -> None:
    with Example("live_feed", tmp_path) as feed:
        done = run("scrapy_feed", tmp_path, "--url", f"ws://127.0.0.1:{feed.port}/", "--items", "3")
    assert done.returncode == 0, done.stderr
    items = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(item) for item in items] == [["value"]] * 3
    assert done.stderr == ""
