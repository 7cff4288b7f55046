"""Writes the page of the event catalogue: `python -m eventsched.events.page > deploy/docs/events.md`.

Everything on it comes from the Structs, their docstrings and the examples, so it cannot go stale: a
test compares.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from eventsched import codec
from eventsched.events.catalogue import EXAMPLES
from eventsched.events.decisions import Conclusion, Owed, Rejection
from eventsched.resources import Capacity, Gpu, Resources
from eventsched.spec import FakeRun, Volume
from eventsched.wire import Event

SHAPES: tuple[type[msgspec.Struct], ...] = (Capacity, Gpu, Resources, Volume, FakeRun, Owed, Rejection, Conclusion)

INTRO = """# Events

<!-- Generated: python -m eventsched.events.page > deploy/docs/events.md -->

The log is the JetStream stream `EV`. Every message is one JSON object of at most 256 KiB; the subject says what it
is, together with the field `type` where several kinds share a subject. Numbers are integers with their unit in the
name. Fields that are absent have the default shown. Unknown fields of a submission are refused by name; those of
other events are ignored, so that older readers survive newer writers.

Whatever can't be read, or makes no sense where it stands, never stops anybody: a submission is `rejected` with a
reason, and anything else is counted as an anomaly (`eventsched stats`).

| Subject | Written by |
|---|---|
| `ev.job.<tenant>.<job>.<verb>` | clients: the SDK, the CLI, `nats pub` by hand |
| `ev.admin.<kind>` | operators |
| `ev.node.<node>`, `ev.run.<node>` | the agent of that node |
| `ev.leader`, `ev.assign.<node>`, `ev.decide.<kind>` | the leading scheduler, one fenced round at a time |

`ev.assign.<node>` is what an agent consumes: the recorded decision is the command. Events of a round carry `epoch`,
`round`, `index` and `count`; the first of a round also says what it was decided on: `basis` (the last sequence
folded), `now_ms`, and the policy if it changed.
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [INTRO]
    for subject, event in EXAMPLES:
        if f"## {_title(subject, event)}\n" not in "\n".join(parts):
            parts.append(_section(subject, event))
        else:
            parts.append(f"```json\n{_json(event)}\n```\n")
    parts.append("# Shapes inside them\n")
    parts += [f"## {shape.__name__}\n\n{_shape(shape)}" for shape in SHAPES]
    return "\n".join(parts)


def _title(subject: str, event: Event) -> str:
    tag = type(event).__struct_config__.tag
    return f"`{_pattern(subject)}`" + (f" · `{tag}`" if tag else "")


def _pattern(subject: str) -> str:
    parts = subject.split(".")
    match parts[1]:
        case "job":
            return f"ev.job.<tenant>.<job>.{parts[-1]}"
        case "node" | "run" | "assign":
            return f"ev.{parts[1]}.<node>"
    return subject


def _json(event: Event) -> str:
    return msgspec.json.format(codec.encode(event), indent=2).decode()


def _section(subject: str, event: Event) -> str:
    return f"## {_title(subject, event)}\n\n{_shape(type(event))}\n```json\n{_json(event)}\n```\n"


def _shape(kind: type[msgspec.Struct]) -> str:
    lines = [_prose(inspect.cleandoc(kind.__doc__ or "")), ""]
    fields = msgspec.structs.fields(kind)
    if fields:
        lines += ["| Field | Type | Default |", "|---|---|---|"]
        lines += [f"| `{field.encode_name}` | {_type(field.type)} | {_default(field)} |" for field in fields]
        lines.append("")
    return "\n".join(lines)


def _prose(text: str) -> str:
    """A docstring as Markdown: what it says of fields becomes a list."""
    head, _, notes = text.partition("\n\n")
    items = re.sub(r"\n +", " ", notes).split("\n")
    listed = [f"- {item}" if re.match(r"[a-z_]+(, [a-z_]+)*: ", item) else item for item in items if item]
    return "\n".join([head, *([""] if listed else []), *listed])


def _type(annotation: Any) -> str:
    plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    text = re.sub(r"Annotated\[int, Meta\([^)]*\)\]", "int", re.sub(r"\b[a-z_]+\.(?=[a-zA-Z_.]*[A-Z])", "", text))
    text = re.sub(r"Union\[(Literal\[[^]]*\]), UnsetType\]", r"\1", text)
    text = re.sub(r"Optional\[(.*)\]", r"\1 or null", text).replace(" | None", " or null")
    return "`" + re.sub(r"Union\[(\w+), (\w+)\]", r"\1 or \2", text) + "`"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        return "absent" if field.default is msgspec.UNSET else f"`{msgspec.json.encode(field.default).decode()}`"
    if field.default_factory is not msgspec.NODEFAULT:
        return f"`{msgspec.json.encode(field.default_factory()).decode()}`"
    return "required"


if __name__ == "__main__":
    print(page(), end="")
