"""The options that commands share: a function that declares each group, and the type it becomes.

Parsed arguments have a type for each command from its `run` on: a frozen dataclass whose fields
are named as argparse has them, or are such groups. argparse's own Namespace goes no further. This
module loads nothing else, so that a command without bundles or mounts starts quickly.
"""

import argparse
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)


def typed(kind: "type[T]", arguments: argparse.Namespace) -> "T":
    """Return what was parsed as a value of this type; fields that are groups get all of it."""
    return kind(**{field.name: _value(field.type, field.name, arguments) for field in fields(kind)})


def _value(kind: object, name: str, arguments: argparse.Namespace) -> object:
    if isinstance(kind, type) and is_dataclass(kind):
        return typed(kind, arguments)
    return getattr(arguments, name)
