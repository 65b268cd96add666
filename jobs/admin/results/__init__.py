"""The ledger in the admin: what was sent, what became of it, and why."""

from jobs.admin.results import admin

__all__ = ["admin"]
