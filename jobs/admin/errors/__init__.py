"""Errors of the ledger, grouped."""

from jobs.admin.errors import admin

__all__ = ["admin"]
