"""The cost of compression, by level and window: ``python -m benchmarks.compression``, in the repository's root.

Uses ISA-L if the extra ``isal`` is installed; with TWISTED_BEASTWS_ZLIB=1, Python's zlib. Ignore the first row's
memory: it comes partly from memory that the imports left free.
"""

from __future__ import annotations

import json
import os
from itertools import product
from time import process_time

from twisted_beastws import Deflate
from twisted_beastws.wire.compressor import ISAL
from twisted_beastws.wire.deflate import Negotiated, PerMessageDeflate

MESSAGES = 400
CONNECTIONS = 20
SETTLED = 80
"""The number of messages that fill a window of 32 KiB twice."""
ROUNDS = 5
LEVELS = (1, 6, 8, 9)
WINDOWS = (9, 12, 15)
_PAGE = os.sysconf("SC_PAGE_SIZE")


def messages() -> list[bytes]:
    """Return typical messages of an application: similar ones of about 1000 bytes of JSON each."""
    return [
        json.dumps(
            [
                {
                    "id": 7919 * n * seed % 10007,
                    "user": f"user{n}",
                    "text": f"message {n * n + seed} of {n}",
                    "read": n % 3,
                }
                for n in range(15)
            ]
        ).encode()
        for seed in range(MESSAGES)
    ]


def codec(level: int, bits: int, alone: bool, server: bool) -> PerMessageDeflate:
    """Return the codec of one end of a connection; the parameters are those of the server's compression."""
    options = Deflate(level=level, server_max_window_bits=bits, server_no_context_takeover=alone)
    return PerMessageDeflate(Negotiated("", bits, 15, alone, False), options, server)


def resident() -> int:
    """Return this process's memory, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * _PAGE


_connections: list[PerMessageDeflate] = []


def kept(level: int, bits: int, alone: bool, sent: list[bytes]) -> float:
    """Return the bytes of memory that a connection keeps for sending."""
    before = resident()
    for _ in range(CONNECTIONS):
        one = codec(level, bits, alone, True)
        for message in sent[:SETTLED]:
            one.compress(message)
        # Keep the connections: the next row would reuse freed memory without asking the system for more.
        _connections.append(one)
    return max(resident() - before, 0) / CONNECTIONS


def row(level: int, bits: int, alone: bool, sent: list[bytes]) -> list[str]:
    """Return a row of the table."""
    packing = unpacking = float("inf")
    for _ in range(ROUNDS):
        ours, theirs = codec(level, bits, alone, True), codec(level, bits, alone, False)
        begun = process_time()
        packed = [ours.compress(message) for message in sent]
        between = process_time()
        for message in packed:
            for _piece in theirs.inflate(message, True, 1 << 20):
                pass
        packing, unpacking = min(packing, between - begun), min(unpacking, process_time() - between)
    memory = kept(level, bits, alone, sent) / 1024
    share = sum(map(len, packed)) / sum(map(len, sent))
    figures = f"{100 * share:.0f}%", f"{1e6 * packing / MESSAGES:.1f}", f"{1e6 * unpacking / MESSAGES:.1f}"
    return ["no" if alone else "yes", str(level), str(bits), *figures, f"{memory:.0f}"]


def main() -> None:
    sent = messages()
    print(f"{'ISA-L' if ISAL else 'zlib'}, {MESSAGES} messages of {sum(map(len, sent)) // MESSAGES} bytes on average\n")
    print("| takeover | level | window bits | size | µs to compress | µs to inflate | KiB a connection |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for alone, level, bits in product((False, True), LEVELS, WINDOWS):
        print(f"| {' | '.join(row(level, bits, alone, sent))} |")


if __name__ == "__main__":
    main()
