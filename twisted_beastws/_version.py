"""The package's version, the one place where it stands."""

__version__ = "1.0.0.dev0"
