"""Tests of the installation from a wheel, from an sdist and in place, and of the twistd plug-in."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

import pytest

import twisted_beastws
from twisted_beastws._version import __version__

from .support.background import Command, Job

CHECKOUT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "__pycache__", "build", "dist", "venv", "*.egg-info", "*.pyc", "*.so", "dropin.cache"
)
# PYTHONPATH would replace the installed package by the checkout; TWISTED_BEASTWS_PURE selects the codec.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TWISTED"))}
OURS = {"twisted_beastws.py", "dropin.cache", "__pycache__"}
HAS_COMPILER = shutil.which("cc") is not None
NO_COMPILER = {"CC": "/no/such/compiler"}
ACCELERATED = "import twisted_beastws\nprint(json.dumps(twisted_beastws.ACCELERATED))"


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env={**ENVIRONMENT, **variables}, capture_output=True, text=True, timeout=120
    )


def checked(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def link_entries(source: Path, target: Path, leave: Callable[[str], bool]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        link = target / entry.name
        if not leave(entry.name) and not link.exists():
            link.symlink_to(entry)


def is_ours(name: str) -> bool:
    return name.startswith(("twisted_beastws", "__editable__")) or name == "__pycache__"


class Environment:
    """A virtual environment that links to all packages of the running one except ours, so it needs no network."""

    def __init__(self, kind: str, home: Path) -> None:
        self.kind = kind
        self.clone: Path | None = None
        venv.create(home, with_pip=False, symlinks=True)
        self.python = home / "bin" / "python"
        (self.site,) = home.glob("lib/python*/site-packages")
        for kind in ("purelib", "platlib"):
            packages = Path(sysconfig.get_path(kind))
            link_entries(packages, self.site, lambda name: is_ours(name) or name == "twisted")
            if (packages / "twisted").is_dir():
                self.link_twisted(packages / "twisted")
        self.twistd = home / "bin" / "twistd"
        self.twistd.write_text("from twisted.scripts.twistd import run\nrun()\n")

    def link_twisted(self, package: Path) -> None:
        # The running environment may have its own copy of our plug-in in twisted/plugins.
        link_entries(package, self.site / "twisted", {"plugins", "__pycache__"}.__contains__)
        link_entries(package / "plugins", self.site / "twisted" / "plugins", OURS.__contains__)

    def installation(self, *what: str | Path, **variables: str) -> Command:
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install")
        options = ("--no-index", "--no-deps", "--no-build-isolation")
        return Command([str(word) for word in (*pip, *options, *what)], self.site, {**ENVIRONMENT, **variables})

    def evaluate(self, statements: str, cwd: Path) -> object:
        return json.loads(checked(self.python, "-c", f"import json, sys\n{statements}", cwd=cwd))


def copied(checkout: Path, target: Path) -> Path:
    """Copy a checkout for a build, because a build writes files there and reuses those of an earlier build."""
    return Path(shutil.copytree(checkout, target, ignore=NOT_SOURCE))


def build(kind: str, directory: Path, **variables: str) -> Command:
    """Build a wheel or an sdist in a copy of the checkout; the output's last line is its name."""
    hook = f"from setuptools import build_meta; print(build_meta.build_{kind}('dist'))"
    clone = copied(CHECKOUT, directory / "checkout")
    return Command([sys.executable, "-c", hook], clone, {**ENVIRONMENT, **variables})


def built(job: Job) -> Path:
    """Wait for a build, and return its file."""
    return job.directory / "checkout" / "dist" / job.output().splitlines()[-1]


WHEEL = Job(partial(build, "wheel", CFLAGS="-O0"), "wheel", "installed")
SDIST = Job(partial(build, "sdist"), "sdist", "installed")
PURE_WHEEL = Job(partial(build, "wheel", TWISTED_BEASTWS_BUILD_PURE="1"), "pure_wheel")


class Installation(Job):
    """Installs the package in a new environment."""

    environment: Environment

    def __init__(self, kind: str) -> None:
        super().__init__(self.command, "installed")
        self.kind = kind

    def command(self, directory: Path) -> Command:
        self.environment = Environment(self.kind, directory / "venv")
        if self.kind == "wheel":
            return self.environment.installation(built(WHEEL), **NO_COMPILER)
        if self.kind == "sdist":
            return self.environment.installation(built(SDIST), **NO_COMPILER)
        # The build of the wheel has translated the sources to C in its directory.
        self.environment.clone = built(WHEEL).parents[1]
        return self.environment.installation("-e", self.environment.clone, CFLAGS="-O0")


INSTALLATIONS = {kind: Installation(kind) for kind in ("wheel", "sdist", "editable")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(CHECKOUT, tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module")
def wheel() -> Path:
    if not HAS_COMPILER:
        pytest.skip("THE COMPILED WHEEL IS NOT TESTED: apt-get install gcc libc6-dev python3-dev")
    return built(WHEEL)


@pytest.fixture(scope="module")
def sdist() -> Path:
    return built(SDIST)


@pytest.fixture(scope="module")
def pure_wheel() -> Path:
    return built(PURE_WHEEL)


@pytest.fixture(scope="module", params=list(INSTALLATIONS))
def installed(request: pytest.FixtureRequest) -> Environment:
    """Install from a wheel, from an sdist without a C compiler, or in place from a clone, as the README does."""
    if request.param == "wheel":
        # It may skip.
        request.getfixturevalue("wheel")
    installation = INSTALLATIONS[request.param]
    installation.output()
    return installation.environment


def files_below(folder: Path, *names: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for name in names for path in (folder / name).rglob("*.*")}


def test_the_wheel_holds_every_file_of_the_package_and_no_other(source: Path, wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    compiled = sorted(name.partition(".")[::2] for name in names - files_below(source, "twisted_beastws", "twisted"))
    modules = [
        "tls/_records",
        "wire/_broadcast",
        "wire/_direct",
        "wire/_reader",
        "wire/_speedups",
        "wire/_turns",
        "wire/_writer",
    ]
    assert [module for module, _ in compiled] == [f"twisted_beastws/{module}" for module in modules]
    assert all(suffix.endswith("so") for _, suffix in compiled)
    assert files_below(source, "twisted_beastws", "twisted") < names
    assert {"twisted_beastws/py.typed", "twisted/plugins/twisted_beastws.py"} <= names
    assert any(name.startswith("twisted_beastws/service/") and name.endswith(".html") for name in names)
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names


def test_the_readme_has_absolute_links_on_an_index(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    links = re.findall(r"\]\(([^)]+)\)", metadata.partition("# twisted_beastws\n")[2])
    assert len(links) > 10 and [link for link in links if not link.startswith(("https://", "http://localhost"))] == []
    assert "Description-Content-Type: text/markdown" in metadata


def test_a_pure_wheel_fits_every_platform(pure_wheel: Path) -> None:
    assert pure_wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(pure_wheel).namelist() if name.endswith(".so")]


def test_no_extension_claims_to_be_safe_without_the_gil() -> None:
    """Without the GIL, writers in several threads would mix frames in the one buffer in which they gather them."""
    compiled = sorted((CHECKOUT / "twisted_beastws").rglob("*.pyx"))
    assert [path.name for path in compiled] == ["_records.pyx", "_broadcast.pyx", "_direct.pyx", "_speedups.pyx"]
    wire = CHECKOUT / "twisted_beastws" / "wire"
    for source in (*compiled, *wire.glob("*.py"), *wire.glob("*.pxd"), CHECKOUT / "setup.py"):
        assert "freethreading_compatible" not in source.read_text()


def test_the_sdist_contains_its_tests(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert files_below(source, "tests", "examples", "benchmarks", "twisted", "twisted_beastws") <= names
    assert files_below(source, "docs", "fuzz", "deploy") <= names
    pages = {path.name for path in source.glob("*.md")}
    assert {"LICENSE", "noxfile.py", "pyproject.toml", "setup.py", *pages} <= names


def test_twistd_lists_the_service_from_any_directory(installed: Environment, source: Path, tmp_path: Path) -> None:
    for directory in (tmp_path, source, source / "twisted"):
        shown = run(installed.python, installed.twistd, "--help", cwd=directory)
        assert (shown.returncode, shown.stderr) == (0, "")
        lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
        assert ["beastws", "A WebSocket chat, or your own WebSocket application."] in lines


def test_twistd_shows_the_options_of_the_service(installed: Environment, tmp_path: Path) -> None:
    shown = run(installed.python, installed.twistd, "beastws", "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Usage: " in shown.stdout


def test_the_plugin_costs_other_users_of_twistd_one_module(installed: Environment, tmp_path: Path) -> None:
    statements = """
import twisted.application.app, twisted.plugins
before = set(sys.modules)
import twisted.plugins.twisted_beastws
print(json.dumps(sorted(set(sys.modules) - before)))"""
    assert installed.evaluate(statements, tmp_path) == ["twisted.plugins.twisted_beastws"]


def test_importing_the_package_installs_no_reactor(installed: Environment, tmp_path: Path) -> None:
    statements = "import twisted_beastws\nprint(json.dumps('twisted.internet.reactor' in sys.modules))"
    assert installed.evaluate(statements, tmp_path) is False


def test_the_compiled_codec_is_optional_and_used_in_the_clone_too(installed: Environment, tmp_path: Path) -> None:
    compiled = HAS_COMPILER and installed.kind != "sdist"
    # Python puts the working directory first on sys.path, and so does twistd.
    in_clone = [] if installed.clone is None else [installed.clone, installed.clone / "examples"]
    for directory in (tmp_path, *in_clone):
        assert installed.evaluate(ACCELERATED, directory) is compiled


def test_this_suite_runs_on_the_installed_package() -> None:
    ours = distribution("twisted_beastws")
    origin = json.loads(ours.read_text("direct_url.json") or "{}")
    home = CHECKOUT if origin.get("dir_info", {}).get("editable") else Path(str(ours.locate_file("")))
    tested = Path(twisted_beastws.__file__).parents[1]
    assert tested.resolve() == home.resolve(), "something puts the checkout on sys.path: run plain pytest"
    assert ours.version == __version__
