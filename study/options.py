"""Options of an analysis, declared once: default, bounds and help, for the command line, study files and Python.

An options class is a frozen pydantic dataclass whose fields are made by `option`. It is the section of a study file as
it is; `command_options` makes the options of a command from it, `options_from` the object from the values of a command.

    @dataclass(frozen=True, config=STRICT)
    class ScanOptions:
        n: Annotated[int, Field(ge=4)] = option(48, "Items that are scanned.")
        kinds: Names = option(("mean", "zero"), "How heads are changed.", flag="--kind")
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import annotated_types
import click
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    metavar: str | None = None,
    is_command: bool = True,
) -> Any:
    """One field of an options class.

    Args:
        default: its value where nobody gives one; without it the option must be given. A dict is copied.
        help: one sentence, for `--help` and the reference.
        flag: on the command line, where it is not the name of the field, e.g. `--folds` of `n_folds`.
        metavar: what `--help` calls the value.
        is_command: False for an option that only study files have.
    """
    metadata = {"help": help, "flag": flag, "metavar": metavar, "is_command": is_command}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def command_options(
    options: type, *, only: Collection[str] = (), omit: Collection[str] = ()
) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option for each field of an options class, in their order.

    Args:
        only: fields that become options; all by default.
        omit: fields that do not.
    Raises:
        ValueError: a name that is no field, or a field whose type no option can hold.
    """
    names = [one.name for one in fields(options)]
    if strange := [name for name in (*only, *omit) if name not in names]:
        raise ValueError(f"{options.__name__} has no field {', '.join(strange)}; it has {', '.join(names)}.")

    def decorate(command: Command) -> Command:
        for one in reversed(list(_shown(options))):
            if (not only or one.name in only) and one.name not in omit:
                command = _click_option(options, one)(command)
        return command

    return decorate


def options_from(options: type[T], values: Mapping[str, Any], **more: Any) -> T:
    """The options that a command was given, checked as those of a study file are.

    Args:
        values: what click hands to the command; keys that are no fields are left alone.
        more: further fields, by name.
    Raises:
        ValueError: what the class refuses, each under the name that the user gave it.
    """
    named = {one.name: one for one in fields(options)}  # pyright: ignore[reportArgumentType]
    chosen = {name: value for name, value in values.items() if name in named}
    # click gives () or None where an option of several values is not given
    empty = {name for name, value in chosen.items() if value in ((), None) and default_of(named[name]) in ((), {})}
    chosen = {name: value for name, value in chosen.items() if name not in empty} | more
    try:
        return TypeAdapter(options).validate_python(chosen)
    except ValidationError as error:
        raise ValueError("\n".join(_fault(fault) for fault in error.errors())) from None


def help_of(options: type) -> dict[str, str]:
    """Field -> its sentence of help."""
    return {one.name: one.metadata.get("help", "") for one in fields(options)}


def default_of(one: Field[Any]) -> Any:
    """The default of a field; `dataclasses.MISSING` where it must be given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def _fault(fault: Any) -> str:
    from interp.remedy import remedy

    name = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
    text = fault["msg"].removeprefix("Value error, ")
    if not name:  # of several fields together: the text names them
        return text
    return f"{remedy(f'{{{name}}}') or name}: {text[:1].lower()}{text[1:]}, got {fault['input']!r:.80}."


def _shown(options: type) -> Iterator[Field[Any]]:
    yield from (one for one in fields(options) if one.metadata.get("is_command", True))


@cache
def _types(options: type) -> dict[str, Any]:
    return get_type_hints(options, include_extras=True)


def _click_option(options: type, one: Field[Any]) -> Callable[[Command], Command]:
    """The click option of a field: its type and bounds from the annotation."""
    metadata = one.metadata
    default: Any = default_of(one)
    flag = metadata.get("flag") or f"--{one.name.replace('_', '-')}"
    kind, bounds, is_optional = _unwrapped(_types(options)[one.name])
    settings: dict[str, Any] = {"help": metadata.get("help"), "metavar": metadata.get("metavar")}
    if default is MISSING:
        settings["required"] = True
    elif default is not None and default != () and default != {}:
        settings |= {"default": default, "show_default": True}
    if kind is bool:
        names = f"{flag}/--no-{flag[2:]}" if is_optional or default is True else flag
        switch = {"is_flag": True} if names == flag else {"default": default, "show_default": False}
        return click.option(names, one.name, **{**settings, **switch, "metavar": None})
    if get_origin(kind) is tuple:
        settings["type"] = Listed(get_args(kind)[0])
        if "default" in settings:
            settings["default"] = ",".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in settings["default"]
            )
    elif _is_conditions(kind):
        settings |= {"multiple": True, "metavar": metadata.get("metavar") or "CONDITION"}
    else:
        settings["type"] = _click_type(kind, bounds, f"{options.__name__}.{one.name}")
    return click.option(flag, one.name, **settings)


def _is_conditions(kind: Any) -> bool:
    """Conditions as `interp.where` reads them: a mapping in a study file, repeated words on the command line."""
    return get_origin(kind) in (Union, types.UnionType) and any(
        isinstance(origin := get_origin(part), type) and issubclass(origin, Mapping) for part in get_args(kind)
    )


def _unwrapped(annotation: Any) -> tuple[Any, list[Any], bool]:
    """(type, its constraints, whether None is one of its values)."""
    bounds: list[Any] = []
    is_optional = False
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *metadata = get_args(annotation)
            for entry in metadata:
                bounds += entry.metadata if isinstance(entry, FieldInfo) else [entry]
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            is_optional = True
            parts = [part for part in get_args(annotation) if part is not type(None)]
            annotation = parts[0] if len(parts) == 1 else Union[tuple(parts)]  # noqa: UP007
        else:
            return annotation, bounds, is_optional


def _click_type(kind: Any, bounds: Sequence[Any], where: str) -> Any:
    """The click type of one value; values of another type are left to the options class, which checks them."""
    if get_origin(kind) is Literal:
        return click.Choice([str(choice) for choice in get_args(kind)])
    ends: dict[str, Any] = {}
    for bound in bounds:
        if isinstance(bound, annotated_types.Ge):
            ends["min"] = bound.ge
        elif isinstance(bound, annotated_types.Gt):
            ends |= {"min": bound.gt, "min_open": True}
        elif isinstance(bound, annotated_types.Le):
            ends["max"] = bound.le
        elif isinstance(bound, annotated_types.Lt):
            ends |= {"max": bound.lt, "max_open": True}
    if kind is int:
        return click.IntRange(**ends) if ends else click.INT
    if kind is float:
        return click.FloatRange(**ends) if ends else click.FLOAT
    if kind is str:
        return click.STRING
    if get_origin(kind) in (Union, types.UnionType):
        return Value()
    raise ValueError(f"{where}: no command-line option can hold {kind}; declare it with is_command=False.")


class Listed(click.ParamType):
    """Several values of one type, separated by commas; a tuple."""

    name = "list"

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        words = [word.strip() for word in value.split(",") if word.strip()]
        kind, bounds, _ = _unwrapped(self.inner)
        one = _click_type(kind, bounds, "list")
        return tuple(one.convert(word, param, ctx) for word in words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "A,B,..."


class Value(click.ParamType):
    """A number where it reads as one, else text."""

    name = "value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value
