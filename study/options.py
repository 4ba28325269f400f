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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import annotated_types
import click
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., object])


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    flag: str | None = None,
    param: str | None = None,
    metavar: str | None = None,
    is_command: bool = True,
    is_argument: bool = False,
    is_repeated: bool = False,
) -> Any:
    """One field of an options class.

    Args:
        default: value if the option is not given; without a default, the option is required. A dict is copied.
        help: one sentence, for `--help` and the reference.
        flag: on the command line, where it is not the name of the field, e.g. `--folds` of `n_folds`; a switch may name
            both of its sides, `--equal/--unequal`.
        param: click's name of it, where another class of the same command has a field of this name.
        metavar: what `--help` calls the value.
        is_command: False for an option that only study files have.
        is_argument: a word of the command line without a flag; a tuple takes all that are left.
        is_repeated: a tuple whose flag is given once for each value, in place of commas between them.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "param": param,
        "metavar": metavar,
        "is_command": is_command,
        "is_argument": is_argument,
        "is_repeated": is_repeated,
    }
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def command_options(*classes: type) -> Callable[[Command], Command]:
    """A decorator that gives a click command one option for each field of options classes, in their order.

    A field that two of the classes have is one option, as the first of them declares it.

    Raises:
        ValueError: a field whose type no option can hold.
    """
    chosen = {param_of(one): (options, one) for options in reversed(classes) for one in reversed(shown_fields(options))}
    first = {param_of(one): (options, one) for options in reversed(classes) for one in shown_fields(options)}

    def decorate(command: Command) -> Command:
        for name in chosen:
            command = _click_option(*first[name])(command)
        return command

    return decorate


def options_from(options: type[T], values: Mapping[str, object], **more: object) -> T:
    """The options that a command was given, checked as those of a study file are.

    Args:
        values: what click hands to the command, by its names; those of no field of the command line are left alone, and
            None or () is what click gives where the user gives nothing.
        more: further fields, by name.
    Raises:
        ValueError: what the class refuses, each under the name that the user gave it.
    """
    given = {one.name: values.get(param_of(one)) for one in shown_fields(options)}
    chosen = {name: value for name, value in given.items() if value not in ((), None)} | more
    try:
        return TypeAdapter(options).validate_python(chosen)
    except ValidationError as error:
        raise ValueError("\n".join(_fault(fault) for fault in error.errors())) from None


def param_of(one: Field[object]) -> str:
    """Name under which click hands over the value of a field."""
    return one.metadata.get("param") or one.name


def shown_fields(options: type) -> list[Field[object]]:
    """Fields that are options or arguments of a command."""
    return [one for one in fields(options) if one.metadata.get("is_command", True)]


def default_of(one: Field[object]) -> Any:
    """The default of a field; `dataclasses.MISSING` where it must be given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def _fault(fault: ErrorDetails) -> str:
    from interp.remedy import remedy

    name = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
    text = fault["msg"].removeprefix("Value error, ")
    if not name:  # of several fields together: the text names them
        return text
    return f"{remedy(f'{{{name}}}') or name}: {text[:1].lower()}{text[1:]}, got {fault['input']!r:.80}."


@cache
def _types(options: type) -> dict[str, object]:
    return get_type_hints(options, include_extras=True)


def _click_option(options: type, one: Field[object]) -> Callable[[Command], Command]:
    """The click option or argument of a field: its type and bounds from the annotation."""
    metadata, default, name = one.metadata, default_of(one), param_of(one)
    kind, bounds, is_optional = _unwrapped(_types(options)[one.name])
    where = f"{options.__name__}.{one.name}"
    if metadata.get("is_argument"):
        several = get_origin(kind) is tuple
        inner = _inner(kind) if several else _click_type(kind, bounds, where)
        return click.argument(
            name, nargs=-1 if several else 1, required=default is MISSING, type=inner, metavar=metadata.get("metavar")
        )
    flag = metadata.get("flag") or f"--{one.name.replace('_', '-')}"
    settings: dict[str, Any] = {"help": metadata.get("help"), "metavar": metadata.get("metavar")}
    if default is MISSING:
        settings["required"] = True
    elif default not in (None, (), {}, ""):
        settings |= {"default": default, "show_default": True}
    if kind is bool:
        names = f"{flag}/--no-{flag[2:]}" if "/" not in flag and (is_optional or default is True) else flag
        switch = {"default": default, "show_default": default is not None} if "/" in names else {"is_flag": True}
        return click.option(names, name, **{**settings, **switch, "metavar": None})
    if get_origin(kind) is tuple and metadata.get("is_repeated"):
        settings |= {"type": _inner(kind), "multiple": True}
    elif get_origin(kind) is tuple:
        settings["type"] = Listed(_inner(kind))
        if "default" in settings:
            settings["default"] = ",".join(
                f"{value:g}" if isinstance(value, float) else str(value) for value in settings["default"]
            )
    elif _is_conditions(kind):
        settings |= {"multiple": True, "metavar": metadata.get("metavar") or "CONDITION"}
    else:
        settings["type"] = _click_type(kind, bounds, where)
    return click.option(flag, name, **settings)


def _inner(kind: object) -> click.ParamType:
    """Type of each value of a tuple."""
    inner, bounds, _ = _unwrapped(get_args(kind)[0])
    return _click_type(inner, bounds, "list")


def _is_conditions(kind: object) -> bool:
    """Conditions as `interp.where` reads them: a mapping in a study file, repeated words on the command line."""
    return get_origin(kind) in (Union, types.UnionType) and any(
        isinstance(origin := get_origin(part), type) and issubclass(origin, Mapping) for part in get_args(kind)
    )


def _unwrapped(annotation: object) -> tuple[Any, list[object], bool]:
    """(type, its constraints, whether None is one of its values)."""
    bounds: list[object] = []
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


def _click_type(kind: object, bounds: Sequence[object], where: str) -> click.ParamType:
    """The click type of one value; values of another type are left to the options class, which checks them."""
    if own := [bound for bound in bounds if isinstance(bound, click.ParamType)]:
        return own[0]
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
    if kind is Path:
        return click.Path(path_type=Path)
    if get_origin(kind) in (Union, types.UnionType):
        return Value()
    raise ValueError(f"{where}: no command-line option can hold {kind}; declare it with is_command=False.")


class Listed(click.ParamType):
    """Several values of one type, separated by commas; a tuple."""

    name = "list"

    def __init__(self, inner: click.ParamType) -> None:
        self.inner = inner

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[object, ...]:
        if not isinstance(value, str):
            assert isinstance(value, Sequence), "a default is a tuple"
            return tuple(value)
        words = [word.strip() for word in value.split(",") if word.strip()]
        return tuple(self.inner.convert(word, param, ctx) for word in words)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "A,B,..."


class Value(click.ParamType):
    """A number where it reads as one, else text."""

    name = "value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if not isinstance(value, str):
            return value
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return value
