"""The virtual environment of the servers: the peers from the package index, and this checkout, compiled."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import REQUIREMENTS

ROOT = Path(__file__).parent.parent
SOURCES = ("twisted_beastws", "twisted", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")

VERSIONS = """
import json, platform, ssl
from importlib.metadata import version
import twisted_beastws
names = "twisted_beastws Twisted autobahn websockets aiohttp picows uvloop wsproto isal".split()
print(json.dumps({
    "accelerated": twisted_beastws.ACCELERATED,
    "versions": {platform.python_implementation(): platform.python_version()} | {name: version(name) for name in names},
}))
"""


def prepare(directory: Path) -> Path:
    """Create or update the environment in ``directory``, and return its interpreter."""
    python = directory / "bin" / "python"
    print(f"the environment is in {directory}", file=sys.stderr)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        _install(python, *REQUIREMENTS)
    installed = directory / "installed"
    digest = _digest()
    if not installed.exists() or installed.read_text() != digest:
        with tempfile.TemporaryDirectory() as copy:
            # Build from a copy: the build leaves no files in the checkout, and uses no stray files from it.
            _copy_sources(Path(copy))
            _install(python, copy)
        installed.write_text(digest)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return the versions of the installed packages.

    Raises:
        RuntimeError: This project was not compiled.
    """
    told = json.loads(subprocess.check_output([python, "-I", "-c", VERSIONS]))
    if not told["accelerated"]:
        raise RuntimeError("the frame codec was not compiled: is there a C compiler?")
    result: dict[str, str] = told["versions"]
    return result


def _install(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], check=True)


def _copy_sources(target: Path) -> None:
    leave = shutil.ignore_patterns("__pycache__", "*.so", "*.c", "dropin.cache")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=leave)
        else:
            shutil.copy(source, target)


def _digest() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        source = ROOT / name
        for path in sorted(source.rglob("*.*")) if source.is_dir() else [source]:
            if path.suffix in (".py", ".pyx", ".pxd", ".toml", ".html"):
                digest.update(path.read_bytes())
    return digest.hexdigest()
