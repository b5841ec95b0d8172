"""What pyproject.toml cannot say: the plugin directory, and the optional extension."""

from setuptools import Extension, find_packages, setup

try:
    from Cython.Build import cythonize
except ImportError:
    extensions = []
else:
    speedups = Extension("twisted_beastws.wire._speedups", ["twisted_beastws/wire/_speedups.pyx"])
    extensions = cythonize([speedups], build_dir="build")
    for extension in extensions:
        # Where it cannot be built, the pure Python codec serves. cythonize() loses an "optional" given above.
        extension.optional = True

setup(
    # find_packages() does not see a plugin directory, which must stay without an __init__.py.
    packages=[*find_packages(include=["twisted_beastws", "twisted_beastws.*"]), "twisted.plugins"],
    # Named, so that an editable install puts the checkout on sys.path: an import hook would hide twisted/plugins.
    package_dir={"": "."},
    package_data={
        "twisted_beastws": ["py.typed"],
        "twisted_beastws.service": ["*.html"],
        "twisted_beastws.service.api": ["*.json"],
        "twisted_beastws.wire": ["*.pyx", "*.pyi"],
    },
    ext_modules=extensions,
)
