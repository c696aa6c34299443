"""The version of the installed package, which is written into every file of ours."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("regreason")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"
