"""The catalogue of events: every type, what it says, what its fields mean; made from the schemas.

`python -m muniment_schemas.catalogue` writes it to the folder's README.md; a test keeps it true.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from muniment_schemas.events import EVENT_TYPES
from muniment_schemas.subjects import Schemas, Subject

README = Path(__file__).parents[1] / "README.md"
BEGIN = "<!-- catalogue: made by `python -m muniment_schemas.catalogue`, do not edit below -->\n"


def catalogue(schemas: Schemas) -> str:
    """The catalogue as Markdown: the envelope once, then every event with its own fields."""
    subjects = [schemas.newest[kind.__name__] for kind in EVENT_TYPES]
    envelope = schemas.newest["RunCreated"].raw["fields"][0]["type"]
    parts = [
        f"{len(subjects)} event types. Every event has an `envelope` and the fields of its type.\n",
        "### Envelope\n",
        *_fields(envelope["fields"]),
    ]
    for subject in subjects:
        parts += _event(subject)
    return "\n".join(parts) + "\n"


def _event(subject: Subject) -> list[str]:
    about = subject.raw["muniment"]
    return [
        f"\n### {subject.event_type}\n",
        f"{subject.raw['doc']}\n",
        f"Version {subject.version}, topic `{about['topic']}`, about a `{about['aggregate']}`, "
        f"fingerprint `{subject.fingerprint.hex()}`.\n",
        *_fields(subject.raw["fields"][1:]),
    ]


def _fields(fields: list[dict[str, Any]], depth: int = 0) -> list[str]:
    lines = []
    for field in fields:
        lines.append(f"{'  ' * depth}- `{field['name']}` ({_type(field['type'])}): {field['doc']}")
        nested = _record(field["type"])
        if nested is not None:
            lines += _fields(nested["fields"], depth + 1)
    return lines


def _type(avro: Any) -> str:
    if isinstance(avro, list):
        return f"{_type(avro[1])} or null"
    if isinstance(avro, dict):
        match avro["type"]:
            case "map":
                return f"map of {_type(avro['values'])}"
            case "array":
                return f"list of {_type(avro['items'])}"
            case "record":
                return str(avro["name"])
    return str(avro)


def _record(avro: Any) -> dict[str, Any] | None:
    if isinstance(avro, list):
        return _record(avro[1])
    if isinstance(avro, dict):
        if avro["type"] == "record":
            return avro
        if avro["type"] == "array":
            return _record(avro["items"])
    return None


def readme(current: str, schemas: Schemas) -> str:
    """`current` with its catalogue replaced by the one of `schemas`."""
    head, _, _ = current.partition(BEGIN)
    return f"{head}{BEGIN}\n{catalogue(schemas)}"


if __name__ == "__main__":
    README.write_text(readme(README.read_text("utf-8"), Schemas.load()), "utf-8")
