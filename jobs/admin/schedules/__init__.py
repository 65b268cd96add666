"""Schedules in the admin: what runs when, edited, watched and run by hand."""

from jobs.admin.schedules import admin

__all__ = ["admin"]
