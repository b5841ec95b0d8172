"""The checks of the project, each as a session: ``nox -s lint``, ``nox -s tests-3.12``, ``nox -s package``.

`.ci/run` and the workflows of the forge run these sessions. What follows ``--`` goes to pytest.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests"]

VERSIONS = nox.project.python_versions(nox.project.load_toml())
OLDEST = VERSIONS[0]
CORE_COVERAGE = 96
"""Percent of the library's branches and lines that the quick tests must run; they ran 97."""

EXTRAS = "isal,jwt,metrics,postgres,redis,uvloop"

# Tests of whole programs, tests that take minutes, and tests that need the repository.
PROGRAMS = ("asgi", "console", "docs", "examples", "hub", "interop", "service")
LONG = ("tcp/test_flood.py", "tcp/test_stalled.py", "test_conformance.py", "uvreactor", "wire/test_joined.py")
REPOSITORY = (
    "test_architecture.py",
    "test_background.py",
    "test_citations.py",
    "test_conftest.py",
    "test_fuzz.py",
    "test_packaging.py",
    "test_readme.py",
    "test_workflows.py",
    "typed",
)


def without(*names: str) -> list[str]:
    """Return pytest's options that leave out these files and folders below ``tests``."""
    return [f"--ignore=tests/{name}" for name in names]


QUICK = [
    *without(*PROGRAMS, *LONG, *REPOSITORY),
    "--deselect=tests/wire/test_frames.py::TestAnyChunking",
]

# The tests that need no other package than pytest, its plug-in for Twisted and Hypothesis.
OTHERS = ("test_benchmarks.py", "test_json_codec.py")
LIBRARY = [
    *(f"tests/{room}" for room in ("client", "connection", "server", "streams", "testing", "web", "wire")),
    *sorted(str(path) for path in Path("tests").glob("test_*.py") if path.name not in (*REPOSITORY, *LONG, *OTHERS)),
    *without("wire/test_joined.py"),
    "--deselect=tests/wire/test_frames.py::TestAnyChunking",
]
# Twisted 25.5 and older need a pyOpenSSL before 26 (docs/versions.md).
TWISTED = {
    "oldest": ["twisted==24.7.0", "pyopenssl<26"],
    "newest": ["twisted"],
    "trunk": ["twisted @ git+https://github.com/twisted/twisted"],
}


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style with ruff and the spelling with codespell."""
    session.install("-q", "codespell[toml]", "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types with mypy, and with pyright what a user's program sees."""
    session.install("-q", ".[dev]", "pyright")
    session.run("mypy")
    session.run("pyright", "tests/typed/sample.py")


@nox.session(python=VERSIONS)
def tests(session: nox.Session) -> None:
    """Run the whole suite, with the newest version of each dependency."""
    session.install("-q", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python=VERSIONS)
def quick(session: nox.Session) -> None:
    """Run the quick tests, with the newest version of each dependency."""
    session.install("-q", ".[test]")
    session.run("pytest", *QUICK, *session.posargs)


@nox.session(python=OLDEST, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the quick tests on the oldest Python, with the lowest version of each dependency."""
    session.install("-q", "--resolution=lowest-direct", f".[{EXTRAS}]")
    session.install("-q", ".[test]")
    session.run("pytest", *QUICK, *session.posargs)


@nox.session
def pure(session: nox.Session) -> None:
    """Run the tests that use a codec on the pure Python codec."""
    session.install("-q", ".[test]")
    left_out = without(
        "asgi/test_daphne.py",
        "console",
        "docs",
        "examples",
        "hub",
        "service",
        "tcp/test_in_place.py",
        "test_conformance.py",
        "tls/test_records.py",
        "uvreactor",
        *REPOSITORY,
    )
    session.run("pytest", *left_out, *session.posargs, env={"TWISTED_BEASTWS_PURE": "1"})


@nox.session
def uvloop(session: nox.Session) -> None:
    """Run the tests that use a reactor on ``twisted_beastws.uvreactor``."""
    session.install("-q", ".[test]")
    in_memory = ("connection", "console", "docs", "examples", "hub", "service/access", "service/api", "testing", "wire")
    pages = (
        "service/test_http.py",
        "service/test_page.py",
        "service/test_page_connection.py",
        "service/test_page_look.py",
    )
    session.run("pytest", "--uvloop", *without(*in_memory, *pages, *LONG, *REPOSITORY), *session.posargs)


@nox.session
def trunk(session: nox.Session) -> None:
    """Run the quick tests on Twisted's trunk; they may fail."""
    session.install("-q", ".[test]", "twisted @ git+https://github.com/twisted/twisted")
    session.run("pytest", *QUICK, *session.posargs)


@nox.session(python=VERSIONS, venv_backend="uv")
@nox.parametrize("extras", [nox.param("", id="plain"), nox.param(f"[{EXTRAS}]", id="extras")])
@nox.parametrize("twisted", [nox.param(release, id=release) for release in TWISTED])
def library(session: nox.Session, twisted: str, extras: str) -> None:
    """Run the library's tests on a release of Twisted, without the extras or with them; the trunk may fail."""
    session.install("-q", f".{extras}", *TWISTED[twisted], "hypothesis", "pytest>=8.4", "pytest-twisted")
    # CI may skip no test, but the tests of an extra need the extra.
    session.run("pytest", *LIBRARY, *session.posargs, env={"CI": os.environ.get("CI", "") if extras else "false"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    session.install("-q", ".[docs]")
    session.run("sphinx-build", "-W", "-q", "-b", "html", "docs", "build/docs")


@nox.session
def package(session: nox.Session) -> None:
    """Build the sdist and the pure wheel of a release into ``dist``, and check them as an index does."""
    session.install("-q", "build", "check-wheel-contents", "pyroma", "twine", "validate-pyproject[all]")
    session.run("validate-pyproject", "pyproject.toml")
    session.run("python", "-m", "build", "--sdist")
    session.run("python", "-m", "build", "--wheel", env={"TWISTED_BEASTWS_BUILD_PURE": "1"})
    built = sorted(map(str, Path("dist").iterdir()))
    session.run("twine", "check", "--strict", *built)
    session.run("check-wheel-contents", *(name for name in built if name.endswith(".whl")))
    session.run("pyroma", "--min=9", *(name for name in built if name.endswith(".tar.gz")))


@nox.session(python="3.13")
def coverage(session: nox.Session) -> None:
    """Run the whole suite, and fail if the package's branch coverage is below ``fail_under`` in pyproject.toml."""
    session.install("-q", ".[test]", "pytest-cov")
    # The measurement slows Python down and not what is compiled, so costs cannot be compared.
    session.run(
        "pytest", "--cov", "--cov-report=", "--cov-fail-under=0", *without("test_head_cost.py"), *session.posargs
    )
    # The compiled codec hides the Python source of the same code: measure that as well.
    pure = {"TWISTED_BEASTWS_PURE": "1"}
    session.run("pytest", "--cov", "--cov-append", "--cov-report=", "--cov-fail-under=0", "tests/wire", env=pure)
    session.run("coverage", "report", "--skip-covered")


@nox.session(python="3.13")
def core_coverage(session: nox.Session) -> None:
    """Run the quick tests, and fail if the branch coverage of the library is below `CORE_COVERAGE`.

    The library is the package without the rooms whose tests are not quick.
    """
    session.install("-q", ".[test]", "pytest-cov")
    # The measurement slows Python down and not what is compiled, so costs cannot be compared.
    quick = [*QUICK, *without("test_head_cost.py")]
    session.run("pytest", "--cov", "--cov-report=", "--cov-fail-under=0", *quick, *session.posargs)
    rooms = ",".join(f"*/twisted_beastws/{room}/*" for room in ("asgi", "console", "hub", "service", "uvreactor"))
    session.run("coverage", "report", "--skip-covered", f"--omit={rooms}", f"--fail-under={CORE_COVERAGE}")


@nox.session
def links(session: nox.Session) -> None:
    """Follow the documentation's links to other sites."""
    session.install("-q", ".[docs]")
    session.run("sphinx-build", "-q", "-b", "linkcheck", "docs", "build/linkcheck")


@nox.session
def fuzz(session: nox.Session) -> None:
    """Replay each fuzz target's corpus."""
    session.install("-q", ".[test]")
    session.run("pytest", "tests/test_fuzz.py", *session.posargs)
