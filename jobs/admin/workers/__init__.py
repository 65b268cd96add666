"""The workers, what they do, and how the recent ones ended."""

from jobs.admin.workers import admin

__all__ = ["admin"]
