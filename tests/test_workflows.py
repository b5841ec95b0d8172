"""The workflows of the forge run sessions that the noxfile has, with every program that a test needs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# An unpacked sdist has no workflows, so this text is empty there.
WORKFLOWS = "".join(path.read_text("utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")))


def test_each_session_of_a_workflow_is_in_the_noxfile() -> None:
    sessions = re.findall(
        r"^@nox\.session.*\n(?:@.*\n)*def (\w+)", (ROOT / "noxfile.py").read_text("utf-8"), re.MULTILINE
    )
    lists = re.findall(r"\bsession: \[(.*)\]", WORKFLOWS)
    named = [name for listed in lists for name in listed.split(", ")]
    named += re.findall(r"\bsession: ([\w.-]+)", WORKFLOWS) + re.findall(r"\bnox -s \"?([\w.-]*\w)", WORKFLOWS)
    assert {re.sub(r"-3\.\d+$", "", name) for name in named} <= set(sessions)


def test_the_workflow_installs_each_debian_package_that_a_test_asks_for() -> None:
    installed = {name for line in re.findall(r"PROGRAMS: >-\n((?: {4}.*\n)+)", WORKFLOWS) for name in line.split()}
    tests = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    needed = {
        name for text in tests for line in re.findall(r"apt-get install ([a-z0-9 -]+)", text) for name in line.split()
    }
    assert not WORKFLOWS or needed <= installed
