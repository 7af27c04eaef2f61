"""The service: recommendations and the management of catalogues, over HTTP and commands."""

__version__ = "0.1.0"
