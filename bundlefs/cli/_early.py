"""What is imported before all else that takes time: a signal while modules load just ends us."""

from bundlefs.base import signals

if signals.is_program():
    signals.end_at_once()
