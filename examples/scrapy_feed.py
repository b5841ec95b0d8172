"""A Scrapy spider on a WebSocket feed: ``python scrapy_feed.py [--url ws://localhost:9006/] [--items 20]``.

live_feed.py is such a feed. Scrapy runs on Twisted's asyncio reactor, and runs a spider's coroutines as asyncio Tasks:
they await the library's Deferreds and asyncio's objects alike. The items go to standard output, one JSON object a line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess

from twisted_beastws import connect

SETTINGS = {
    "FEEDS": {"stdout:": {"format": "jsonlines"}},
    "LOG_LEVEL": "WARNING",
    "TELNETCONSOLE_ENABLED": False,
}


class FeedSpider(scrapy.Spider):
    """Yields the measurements of a feed, as many as ``items``."""

    name = "feed"

    def __init__(self, url: str, items: int) -> None:
        super().__init__()
        self.url = url
        self.items = items

    async def start(self) -> AsyncIterator[Any]:
        left = self.items
        async with connect(self.url) as ws:
            while left:
                message = await asyncio.wait_for(ws.receive(), 30)
                for value in json.loads(message)[:left]:
                    left -= 1
                    yield {"value": value}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="ws://localhost:9006/", help="the feed (default: %(default)s)")
    parser.add_argument("--items", type=int, default=20, help="items to take from it (default: %(default)s)")
    options = parser.parse_args()
    process = CrawlerProcess(SETTINGS)
    process.crawl(FeedSpider, url=options.url, items=options.items)
    process.start()
