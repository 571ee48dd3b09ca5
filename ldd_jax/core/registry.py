"""Components are frozen dataclasses; their fields are their config.

`@register(kind, name)` names a dataclass. `section(cls_or_instance)` writes it as a plain, locked
ConfigDict holding the name and every field; `build(kind, section)` reads it back and refuses
unknown names and fields. Facts of the run (token space, mesh) are `runtime` fields, which no
config holds.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ml_collections import ConfigDict

from ldd_jax.core.checks import UserError, nearest

_CLASSES: dict[str, dict[str, type]] = {}
_ORIGINS: dict[type, str] = {}
_T = TypeVar("_T")


def register(kind: str, name: str):
    """Class decorator: make the dataclass buildable as `name` of `kind`.

    A file that is run again registers its classes again, in the place of those before.
    """

    def wrap(cls: type[_T]) -> type[_T]:
        names, module = _CLASSES.setdefault(kind, {}), sys.modules.get(cls.__module__)
        file = getattr(module, "__file__", None)
        _ORIGINS[cls] = os.path.realpath(file) if file else cls.__module__
        before = names.get(name)
        again = before is not None and _whose(before) == _whose(cls)
        if before is not None and not again:
            raise ValueError(f"{kind} {name!r} is registered twice: {before} and {cls}")
        names[name] = cls
        cls.registered = (kind, name)  # type: ignore[attr-defined]
        return cls

    return wrap


def _whose(cls: type) -> tuple[str, str]:
    return origin(cls), cls.__qualname__


def origin(cls: type) -> str:
    """The file that registered a class; where there is none (a prompt, a notebook), its module."""
    return _ORIGINS[cls]


def kinds() -> list[str]:
    """All kinds of which something is registered, sorted."""
    return sorted(_CLASSES)


def names(kind: str) -> list[str]:
    """Registered names of a kind, sorted."""
    return sorted(_CLASSES.get(kind, {}))


def component(kind: str, default: type) -> Any:
    """A dataclass field that is itself a component of `kind`."""
    return dataclasses.field(default_factory=default, metadata={"component": kind})


def runtime() -> Any:
    """A dataclass field given by the program when it builds, not by the config."""
    return dataclasses.field(default=None, metadata={"runtime": True})


def _fields(cls: type) -> dict[str, dataclasses.Field]:
    return {f.name: f for f in dataclasses.fields(cls)}


def section(component: Any, **overrides: Any) -> ConfigDict:
    """Write a component class as a locked ConfigDict: its name and every field at its value.

    Args:
      component: a registered dataclass (or an instance, whose values are taken).
      **overrides: field values; for fields that are components, a class, instance or section.

    Raises:
      UserError: for a field that the component does not have.
    """
    cls = component if isinstance(component, type) else type(component)
    fields = {n: f for n, f in _fields(cls).items() if not f.metadata.get("runtime")}
    for name in overrides:
        if name not in fields:
            raise UserError(f"{cls.__name__} has no field {name!r}; {nearest(name, fields)}")
    config = ConfigDict({"name": cls.registered[1]})  # type: ignore[attr-defined]
    for name, field in fields.items():
        if name in overrides:
            value = overrides[name]
        elif isinstance(component, type):
            value = (
                field.default_factory()
                if field.default_factory is not dataclasses.MISSING
                else field.default
            )
        else:
            value = getattr(component, name)
        if field.metadata.get("component") and not isinstance(value, ConfigDict):
            value = section(value)
        if value is dataclasses.MISSING:
            raise UserError(f"{cls.__name__} needs a value for {name!r}")
        config[name] = value
    return config.lock()


def build(kind: str, config: Mapping | ConfigDict, **facts: Any) -> Any:
    """Build the component of `kind` that `config` describes.

    Args:
      kind: component kind, such as "process".
      config: a section, or the plain mapping it was saved as.
      **facts: run-time values for `runtime` fields, passed down to nested components.

    Raises:
      UserError: for an unknown name, field or type, with what is allowed and the nearest match.
    """
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(f"{kind} is {config!r}; expected a section with a name")
    config = dict(config)
    name = config.pop("name", None)
    cls = find(kind, str(name))
    fields = _fields(cls)
    configured = {n for n, f in fields.items() if not f.metadata.get("runtime")}
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in config.items():
        if key not in configured:
            raise UserError(f"{kind} {name!r} has no field {key!r}; {nearest(key, configured)}")
        nested = fields[key].metadata.get("component")
        values[key] = (
            build(nested, value, **facts) if nested else _typed(f"{kind}.{key}", value, hints[key])
        )
    for key, field in fields.items():
        if field.metadata.get("runtime") and key in facts:
            values[key] = facts[key]
    try:
        return cls(**values)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{kind} {name!r}: {error}") from error


def filled(kind: str, config: Mapping) -> dict[str, Any]:
    """`config` and, at their defaults, the fields it lacks: those that are younger than it.

    Raises:
      UserError: for an unknown name.
    """
    cls = find(kind, str(config.get("name")))
    out = dict(config)
    for key, field in _fields(cls).items():
        nested = field.metadata.get("component")
        if field.metadata.get("runtime"):
            continue
        if key in out:
            given = out[key]
            out[key] = filled(nested, given) if nested and isinstance(given, Mapping) else given
        elif nested:
            out[key] = section(field.default_factory()).to_dict()  # type: ignore[operator]
        elif field.default is not dataclasses.MISSING:
            out[key] = field.default
    return out


def _typed(where: str, value: Any, hint: Any) -> Any:
    """Check a value against the field's annotation; lists become tuples."""
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_typed(where, item, get_args(hint)[0]) for item in value)
    if hint in (int, float) and type(value) is int and not -_WHOLE <= value < _WHOLE:
        raise UserError(f"{where} is {_shown(value)}; numbers lie between -2^32 and 2^32")
    if hint is float and type(value) is int:
        return float(value)
    if get_origin(hint) is tuple or (hint in _SCALARS and type(value) is not hint):
        wanted = getattr(hint, "__name__", str(hint))
        raise UserError(f"{where} is {_shown(value)} ({type(value).__name__}); expected {wanted}")
    if hint is float and not math.isfinite(value):
        raise UserError(f"{where} is {value}; expected a finite number")
    return value


_SCALARS = (int, float, str, bool)
_WHOLE = 2**32  # a seed is the largest


def _shown(value: Any) -> str:
    """A value in a message; Python does not write numbers of thousands of digits."""
    if type(value) is not int:
        return repr(value)
    return f"{value:.3g}" if abs(value) < 1e300 else "a number of hundreds of digits"


def find(kind: str, name: str) -> type:
    """The class registered as `name` of `kind`.

    Raises:
      UserError: for an unknown name.
    """
    known = _CLASSES.get(kind, {})
    if name not in known:
        raise UserError(f"unknown {kind} {name!r}; {nearest(str(name), known)}")
    return known[name]


def classes(kind: str, config: Mapping) -> Iterator[type]:
    """The classes that a section and the sections in it name, those that are known."""
    cls = _CLASSES.get(kind, {}).get(str(config.get("name")))
    if cls is None:
        return
    yield cls
    for name, field in _fields(cls).items():
        nested, given = field.metadata.get("component"), config.get(name)
        if nested and isinstance(given, Mapping):
            yield from classes(nested, given)


def parse(kind: str, text: str, **facts: Any) -> Any:
    """Build a component from `NAME` or `NAME:field=value,part=name,part.field=value`.

    Raises:
      UserError: for an unknown name or field, or a value of the wrong type.
    """
    name, _, rest = text.partition(":")
    config = section(find(kind, name)).to_dict()
    for item in filter(None, rest.split(",")):
        path, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"{kind} {text!r}: {item!r} is not field=value")
        node, cls = config, find(kind, name)
        *parents, leaf = path.split(".")
        for parent in parents:
            inner = _field(cls, parent).metadata.get("component")
            if not inner:
                raise UserError(f"{kind} {text!r}: {parent} is a single value, not a component")
            node, cls = node[parent], find(inner, node[parent]["name"])
        inner = _field(cls, leaf).metadata.get("component")
        node[leaf] = (
            section(find(inner, value)).to_dict() if inner else _read(value, node[leaf], item)
        )
    return build(kind, config, **facts)


def _field(cls: type, name: str) -> dataclasses.Field:
    fields = {n: f for n, f in _fields(cls).items() if not f.metadata.get("runtime")}
    if name not in fields:
        raise UserError(f"{cls.registered[1]} has no field {name!r}; {nearest(name, fields)}")  # type: ignore[attr-defined]
    return fields[name]


def _read(text: str, like: Any, item: str) -> Any:
    """A value of the type of `like`."""
    if isinstance(like, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"{item}: expected true or false")
        return text.lower() == "true"
    try:
        return type(like)(text)
    except ValueError as error:
        raise UserError(f"{item}: expected {type(like).__name__}") from error
