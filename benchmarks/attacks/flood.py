"""Flood a server with small messages in large chunks, while a witness on another connection asks for echoes.

``python -m benchmarks.attacks.flood`` starts a server on the loopback interface, attacks it once, and prints how long
the witness waited at worst, and how many honest clients the server closed.
"""

from __future__ import annotations

import argparse
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.attacks.clients import Readers, Testimony, Witness, connect, cpu_seconds, flood
from benchmarks.frames import TEXT, frame
from benchmarks.process import raise_descriptors

MESSAGES = (1 << 16) // 6
"""Empty texts in 64 KiB, the chunk that a transport of Twisted reads at once: 10,922."""


def main() -> None:
    options = _parser().parse_args()
    raise_descriptors()
    if options.port is not None:
        seen = attack(options, options.port, options.pid)
    else:
        with server(options.uvloop, options.idle) as (port, pid):
            seen = attack(options, port, pid)
    if seen.failure is not None:
        sys.exit(f"the witness was cut off: {seen.failure}")
    for name, worst, most in (("", seen.worst, options.most), ("CPU ", seen.worst_cpu, options.most_cpu)):
        if most is not None and worst > most:
            sys.exit(f"the witness waited {worst:.3f} s of {name}time: more than {most:g} s")


def attack(options: argparse.Namespace, port: int, pid: int) -> Testimony:
    """Attack the server that listens on ``port``; print and return the result of the witness."""
    patience = options.patience
    witness = Witness(connect(port, options.witness_target, patience), pid)
    readers = Readers([connect(port, options.target, patience) for _ in range(options.readers)])
    attackers = [connect(port, options.target, patience) for _ in range(options.attackers)]
    chunk = frame(TEXT, b"x" * options.size) * options.messages
    failures: list[str] = []

    def run(connection: object) -> None:
        try:
            flood(connection, chunk, options.chunks, patience)  # type: ignore[arg-type]
        except OSError as error:
            failures.append(str(error))

    cpu = cpu_seconds(pid)
    threads = [threading.Thread(target=run, args=(each,)) for each in attackers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = cpu_seconds(pid) - cpu
    testimony = witness.stop()
    readers.stop()
    for attacker in attackers:
        attacker.close()
    print(f"the flood cost the server: {cpu:.2f} s of CPU{''.join(f'; {each}' for each in failures)}")
    print(
        f"the witness waited at most: {1000 * testimony.worst:.0f} ms, in which the server used "
        f"{1000 * testimony.worst_cpu:.0f} ms of CPU ({testimony.answers} answers)"
    )
    print(f"readers that the server closed: {readers.closed} of {options.readers}, {readers.received} bytes received")
    return testimony


@contextmanager
def server(uvloop: bool, idle: float) -> Iterator[tuple[int, int]]:
    """Run the server of `benchmarks.attacks.server`; yield its port and its process id."""
    command = [sys.executable, "-m", "benchmarks.attacks.server", "--idle", str(idle)]
    process = subprocess.Popen([*command, *(["--uvloop"] if uvloop else [])], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], 30)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError("the server did not start")
        yield int(line), process.pid
    finally:
        process.kill()
        process.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks.flood",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--target", default="/echo", help="the path attacked: /echo, or /room (sends to all)")
    parser.add_argument("--witness-target", default="/echo", help="the path that the witness asks")
    parser.add_argument("--readers", type=int, default=0, help="honest clients on the path attacked, which only read")
    parser.add_argument("--attackers", type=int, default=1, help="connections that flood at the same time")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="texts in a chunk")
    parser.add_argument("--chunks", type=int, default=1, help="chunks that each attacker sends, one after the other")
    parser.add_argument("--size", type=int, default=0, help="bytes of a text")
    parser.add_argument("--idle", type=float, default=300.0, help="Timeouts.idle of the server, in seconds")
    parser.add_argument("--uvloop", action="store_true", help="run the server on twisted_beastws.uvreactor")
    parser.add_argument("--patience", type=float, default=120.0, help="end an attack after so many seconds")
    parser.add_argument("--most", type=float, help="exit with 1 if the witness waits longer than so many seconds")
    parser.add_argument("--most-cpu", type=float, help="the same in the server's CPU time: for a busy machine")
    parser.add_argument("--port", type=int, help="attack a server that runs already, on this port")
    parser.add_argument("--pid", type=int, help="the process of that server, whose CPU time is read")
    return parser


if __name__ == "__main__":
    main()
