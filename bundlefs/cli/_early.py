"""Imported before all else that takes time: a signal while modules load ends us without a word."""

from bundlefs.base import signals

if signals.is_program():
    signals.end_at_once()
