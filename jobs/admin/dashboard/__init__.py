"""The first page: what needs a person, and the numbers of the last hour, day or week."""

from jobs.admin.dashboard import admin

__all__ = ["admin"]
