"""Bridges to other programs, each in a module of its own that needs an extra of this package."""
