"""Which field of a payload does not fit its Struct: a slow second look, only after a failure.

Works from our own type information and not from the decoder's error text, which another version
of the decoder may word differently: the answer ends up in recorded rejections.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import inspect

from eventsched.wire import Event


def first_fault(struct: type[Event], payload: bytes) -> tuple[str, str]:
    """`(code, path)` of the first thing that does not fit; `("undecodable", "")` if it is not JSON."""
    try:
        value = msgspec.json.decode(payload)
    except Exception:
        return "undecodable", ""
    fault = _fault(inspect.type_info(struct), value, "")
    return fault or ("undecodable", "")


def _fault(kind: inspect.Type, value: Any, path: str) -> tuple[str, str] | None:
    match kind:
        case inspect.StructType():
            return _struct_fault(kind, value, path)
        case inspect.IntType():
            if type(value) is not int:
                return "wrong_type", path
            low, high = kind.ge, kind.le
            outside = (low is not None and value < low) or (high is not None and value > high)
            return ("out_of_range", path) if outside else None
        case inspect.StrType():
            return None if type(value) is str else ("wrong_type", path)
        case inspect.BoolType():
            return None if type(value) is bool else ("wrong_type", path)
        case inspect.LiteralType():
            if type(value) is not str:
                return "wrong_type", path
            return None if value in kind.values else ("bad_value", path)
        case inspect.VarTupleType():
            if type(value) is not list:
                return "wrong_type", path
            return next((f for i, v in enumerate(value) if (f := _fault(kind.item_type, v, f"{path}[{i}]"))), None)
        case inspect.DictType():
            if type(value) is not dict:
                return "wrong_type", path
            return next((f for k, v in value.items() if (f := _fault(kind.value_type, v, f"{path}.{k[:64]}"))), None)
        case inspect.UnionType():
            faults = [_fault(one, value, path) for one in kind.types]
            return None if None in faults else faults[0]
        case inspect.NoneType():
            return None if value is None else ("wrong_type", path)
    return None


def _struct_fault(kind: inspect.StructType, value: Any, path: str) -> tuple[str, str] | None:
    if type(value) is not dict:
        return "wrong_type", path
    fields = {field.encode_name: field for field in kind.fields}
    for name, item in value.items():
        inner = f"{path}.{name[:64]}" if path else name[:64]
        field = fields.get(name)
        if field is None:
            return "unknown_field", inner
        fault = _fault(field.type, item, inner)
        if fault:
            return fault
    missing = next((name for name, field in fields.items() if field.required and name not in value), None)
    return ("missing_field", f"{path}.{missing}" if path else missing) if missing else None
