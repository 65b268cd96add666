"""Schedules out of other systems' tables."""
