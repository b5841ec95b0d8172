"""``python -m benchmarks.scale``: measure the chat on this machine; the model's constants follow from the JSON."""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.attacks.clients import connect
from benchmarks.frames import TEXT, frame
from benchmarks.process import cpu_seconds, raise_descriptors
from benchmarks.scale.crowd import MARK
from benchmarks.scale.setting import Setting, kernel_memory, memory

IDLE_ROOM = 20
"""Members of a room of idle connections."""

SETTLE = 3.0
"""Seconds after a step, in which its last work ends."""


def idle(setting: Setting, count: int, seconds: float) -> dict[str, float]:
    """Measure idle connections: the memory of each, and the CPU of its handshake and of a ping."""
    time.sleep(SETTLE)
    workers = setting.workers
    before, kernel = memory(*workers), kernel_memory()
    spent, redis = cpu_seconds(*workers), cpu_seconds(setting.redis.process.pid)
    setting.open(count, "idle", max(1, count // IDLE_ROOM))
    time.sleep(SETTLE)
    found = {
        "memory_per_connection": (memory(*workers) - before) / count,
        "kernel_memory_per_connection_both_ends": (kernel_memory() - kernel) / count,
        "worker_memory_at_start": before / len(workers),
        "cpu_per_join": (cpu_seconds(*workers) - spent) / count,
        "redis_cpu_per_join": (cpu_seconds(setting.redis.process.pid) - redis) / count,
    }
    pings, spent = setting.metrics()["beastws_ping_round_trip_seconds_count"], cpu_seconds(*workers)
    time.sleep(seconds)
    spent = cpu_seconds(*workers) - spent
    pings = setting.metrics()["beastws_ping_round_trip_seconds_count"] - pings
    found["pings_per_second"] = pings / seconds
    found["cpu_per_ping"] = spent / max(pings, 1)
    found["lost"] = sum(answer["lost"] for answer in setting.tell_all("count"))
    return found


def active(setting: Setting, count: int, members: int, rate: float, seconds: float) -> dict[str, float]:
    """Measure members of rooms that talk: the CPU of a message, of its deliveries, and of Redis."""
    setting.open(count, f"active{members}-", max(1, count // members))
    time.sleep(SETTLE)
    workers, redis = setting.workers, setting.redis.process.pid
    info = setting.redis_info()
    received = sum(answer["received"] for answer in setting.tell_all("count"))
    spent, of_redis = cpu_seconds(*workers), cpu_seconds(redis)
    answers = setting.tell_all("talk", rate=rate / len(setting.crowds), seconds=seconds)
    time.sleep(SETTLE)
    spent, of_redis = cpu_seconds(*workers) - spent, cpu_seconds(redis) - of_redis
    after, sent = setting.redis_info(), sum(answer["sent"] for answer in answers)
    received = sum(answer["received"] for answer in setting.tell_all("count")) - received
    lost = sum(answer["lost"] for answer in setting.tell_all("count"))
    setting.tell_all("close")
    return {
        "members": members,
        "messages": sent,
        "messages_per_second": sent / max(answer["seconds"] for answer in answers),
        "deliveries": received,
        "cpu_per_message": spent / sent,
        "cpu_per_delivery": spent / received,
        "redis_cpu_per_message": of_redis / sent,
        "redis_bytes_in_per_message": (after["total_net_input_bytes"] - info["total_net_input_bytes"]) / sent,
        "redis_bytes_out_per_message": (after["total_net_output_bytes"] - info["total_net_output_bytes"]) / sent,
        "redis_memory_per_message": (after["used_memory"] - info["used_memory"]) / sent,
        "lost": lost,
    }


def publish(setting: Setting, members: int, times: int) -> dict[str, float]:
    """Measure the time from a publish to its arrival at each of the members of one room."""
    setting.open(members, "crowd", 1)
    time.sleep(SETTLE)
    sender: socket.socket = connect(setting.port, "/chat/crowd0?name=Sender", 20, "chat.v1+json")
    time.sleep(SETTLE)
    setting.tell_all("take_delays")
    for _ in range(times):
        text = f"{MARK.decode()}{time.monotonic_ns()}"
        sender.sendall(frame(TEXT, json.dumps({"type": "message", "text": text}).encode()))
        time.sleep(0.2)
    time.sleep(SETTLE)
    delays = sorted(delay / 1e3 for answer in setting.tell_all("take_delays") for delay in answer["delays"])
    sender.close()
    setting.tell_all("close")
    return {
        "members": members,
        "publishes": times,
        "deliveries": len(delays),
        "p50_ms": statistics.median(delays),
        "p99_ms": delays[int(len(delays) * 0.99)],
        "max_ms": delays[-1],
    }


def main() -> int:
    """Measure everything, and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--idle", type=int, default=20_000, help="idle connections [20000]")
    parser.add_argument("--active", type=int, default=5000, help="connections that talk [5000]")
    parser.add_argument("--rate", type=float, default=500.0, help="their messages a second, together [500]")
    parser.add_argument("--seconds", type=float, default=30.0, help="seconds of each measurement [30]")
    parser.add_argument("--members", type=int, default=1000, help="members of the room of the publish [1000]")
    parser.add_argument("--times", type=int, default=100, help="publishes [100]")
    parser.add_argument("--uvloop", action="store_true", help="the service runs on twisted_beastws.uvreactor")
    parser.add_argument("--only", nargs="+", choices=["idle", "active", "publish"], help="these parts")
    chosen = parser.parse_args()
    limit = raise_descriptors()
    # The idle connections are on two workers, the active ones once on one.
    if limit < max(chosen.idle // 2, chosen.active) + 2000:
        print(f"this process may open {limit} files, which is too few: ulimit -Hn", file=sys.stderr)
        return 1
    parts = chosen.only or ["idle", "active", "publish"]
    results: dict[str, object] = {"load_before": os.getloadavg()}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        if "idle" in parts:
            with Setting(path, 2, 2, uvloop=chosen.uvloop) as setting:
                results["idle"] = idle(setting, chosen.idle, chosen.seconds)
        if "active" in parts:
            for workers, members in ((2, 10), (2, 100), (1, 10)):
                rate = chosen.rate * (10 / members)
                with Setting(
                    path, workers, 2, "--ping-interval=0", "--idle-timeout=0", uvloop=chosen.uvloop
                ) as setting:
                    found = active(setting, chosen.active, members, rate, chosen.seconds)
                results[f"active, {workers} workers, rooms of {members}"] = found
        if "publish" in parts:
            with Setting(path, 2, 2, uvloop=chosen.uvloop) as setting:
                results["publish"] = publish(setting, chosen.members, chosen.times)
    results["load_after"] = os.getloadavg()
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
