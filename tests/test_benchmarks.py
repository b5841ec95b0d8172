"""Tests of the parts of the benchmarks that need no server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if not (Path(__file__).parents[1] / "benchmarks").is_dir():
    pytest.skip("NO BENCHMARKS HERE: they are in the repository", allow_module_level=True)
# Last, so that the package of the checkout does not hide the installed one.
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import frames
from benchmarks.measure import Figure
from benchmarks.peers import SERVERS, with_before
from benchmarks.report import bottlenecks
from benchmarks.secure import EXPANSION, Counter
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("step", [1, 4, 5, 6, 100, 1000])
def test_the_counter_counts_the_data_of_records_in_any_chunks(step: int) -> None:
    sizes = [1, 64, 300]
    records = b"".join(
        b"\x17\x03\x03" + (size + EXPANSION).to_bytes(2, "big") + bytes(size + EXPANSION) for size in sizes
    )
    counter = Counter()
    counted = [counter.count(memoryview(records)[at : at + step]) for at in range(0, len(records), step)]
    assert sum(counted) == sum(sizes)


@pytest.mark.parametrize(("load", "server", "found"), [(0.95, 0.5, 1), (0.95, 0.95, 0), (0.5, 0.5, 0)])
def test_a_busy_load_generator_is_reported_where_the_server_waits(load: float, server: float, found: int) -> None:
    results = {("1m", "ours"): [Figure(1.0, busy=server, load_busy=load), Figure(2.0, busy=0.1, load_busy=1.0)]}
    assert len(bottlenecks(results)) == found


def test_every_echo_handshake_and_idle_row_exists_over_tls() -> None:
    names = {each.name for each in WORKLOADS}
    plain = {each.name for each in WORKLOADS if not each.secure and each.kind in ("echo", "handshakes", "idle")}
    assert {f"tls-{name}" for name in plain} <= names
    assert all(each.secure == each.name.startswith("tls-") for each in WORKLOADS)


def test_an_older_build_is_measured_after_each_of_our_servers() -> None:
    python = Path("older", "python")
    names = [server.name for server in with_before(SERVERS, python)]
    assert names[:6] == ["ours", "ours-before", "ours-uvloop", "ours-uvloop-before", "pure", "pure-before"]
    assert {server.name for server in with_before(SERVERS, python) if server.python == python} == set(names[1:6:2])


def test_the_fixed_server_answers_with_the_key_of_rfc_6455() -> None:
    """RFC 6455 §1.3."""
    head = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in frames.answer(head)
