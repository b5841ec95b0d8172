"""What pyproject.toml cannot say: the plugin directory, the optional extensions, and the README for an index."""

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).parent
IMAGES = (".svg", ".png")


# The source of each compiled module. A source in Python also serves as it is, so its compiled module has another name;
# ``_NAME.pxd`` declares the C types of that.
SOURCES = {
    "tls._records": "tls/_records.pyx",
    "wire._broadcast": "wire/_broadcast.pyx",
    "wire._direct": "wire/_direct.pyx",
    "wire._reader": "wire/reader.py",
    "wire._speedups": "wire/_speedups.pyx",
    "wire._turns": "wire/turns.py",
    "wire._writer": "wire/writer.py",
}


# Annotations are for mypy: where they say ``int``, an IntEnum may come.
DIRECTIVES = {"language_level": 3, "annotation_typing": False}


def is_stale(translated: Path) -> bool:
    """Return whether a translation is older than a declaration. Cython looks only for ``NAME.pxd`` of a ``NAME.py``."""
    declarations = [path for kind in ("pxd", "pyx") for path in Path("twisted_beastws").rglob(f"*.{kind}")]
    return translated.exists() and translated.stat().st_mtime < max(path.stat().st_mtime for path in declarations)


class BuildCython(build_ext):
    """Translate the sources of a module to C when it is built, so that an sdist and metadata do not wait for that."""

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        stale = is_stale(Path("build", ext.sources[0]).with_suffix(".c"))
        (translated,) = cythonize([ext], build_dir="build", compiler_directives=DIRECTIVES, force=stale)
        ext.sources = translated.sources
        super().build_extension(ext)


def extensions() -> list[Extension]:
    """Return the compiled modules, or nothing without Cython and for the pure wheel (TWISTED_BEASTWS_BUILD_PURE=1)."""
    if os.environ.get("TWISTED_BEASTWS_BUILD_PURE", "0") not in ("", "0") or find_spec("Cython") is None:
        return []
    compiled = [
        # Without them the pure Python codec and Twisted's own TLS serve.
        Extension(f"twisted_beastws.{module}", [f"twisted_beastws/{source}"], optional=True)
        for module, source in SOURCES.items()
    ]
    if sys.platform == "linux" and "CFLAGS" not in os.environ:
        for extension in compiled:
            # Without symbols and debugging information the extension has a seventh of the size.
            extension.extra_compile_args, extension.extra_link_args = ["-g0"], ["-Wl,--strip-all"]
    return compiled


def value_in(path: str, name: str) -> str:
    """Return the text that a file gives to a name."""
    (value,) = re.findall(rf'^{name} = "(.*)"$', (HERE / path).read_text("utf-8"), re.MULTILINE)
    return str(value)


def readme() -> str:
    """Return the README with absolute links: an index shows it outside the repository."""
    repository = value_in("pyproject.toml", "Repository")
    version = value_in("twisted_beastws/_version.py", "__version__")

    def absolute(link: "re.Match[str]") -> str:
        kind = "raw" if link[1].endswith(IMAGES) else "blob"
        return f"]({repository}/{kind}/{version}/{link[1]})"

    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", absolute, (HERE / "README.md").read_text("utf-8"))


setup(
    # find_packages() does not see a plugin directory, which must stay without an __init__.py.
    packages=[*find_packages(include=["twisted_beastws", "twisted_beastws.*"]), "twisted.plugins"],
    # Named, so that an editable install puts the checkout on sys.path: an import hook would hide twisted/plugins.
    package_dir={"": "."},
    package_data={
        "twisted_beastws": ["py.typed"],
        "twisted_beastws.hub": ["*.sql"],
        "twisted_beastws.service": ["*.html"],
        "twisted_beastws.service.api": ["*.json"],
        "twisted_beastws.tls": ["*.pyx", "*.pyi"],
        "twisted_beastws.wire": ["*.pxd", "*.pyx", "*.pyi"],
    },
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildCython},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
