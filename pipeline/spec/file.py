"""Reads a spec from its YAML file. Any mistake in it becomes one line that names the file and the key."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import StrataError, printable
from pipeline.spec.document import read_document
from pipeline.spec.spec import Spec

# pydantic puts the tag of a discriminated union into the location of an error; the user never wrote it there.
TAGGED_SECTIONS = {"tables", "features", "objectives"}
VALUE, LINE = 80, 400  # characters of a value and of half a line in an error


def load_spec(path: Path) -> Spec:
    """The spec in a YAML 1.2 file (`no` is a string, `1e-3` a number, a key given twice an error).

    Raises StrataError if the file is missing, is no YAML, or breaks a rule of the spec.
    """
    content = read_document(path)
    if not isinstance(content, Mapping):
        raise StrataError("the spec is not a mapping", where=path, fix="start from one in feature_specs/")
    return parse_spec(content, path)


def parse_spec(content: Mapping[str, Any], source: object) -> Spec:
    """The spec in a parsed document; `source` is the name that errors give it. Raises StrataError."""
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        # A misspelt key shows up twice, as unknown and as missing: the first tells the user more.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        what, fix = _in_words(problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StrataError(printable(what, LINE), where=source, fix=printable(fix, LINE) + more) from None


def _in_words(problem: Any) -> tuple[str, str]:
    """What was found at which key, and what would be right."""
    location = [printable(str(part), VALUE) for part in problem["loc"] if part != "[key]"]
    if len(location) > 2 and location[0] in TAGGED_SECTIONS:
        del location[2]
    key = ".".join(location)
    match problem["type"]:
        case "value_error":
            what, fix = str(problem["ctx"]["error"]).rsplit("; ", 1)
            return (f"{key}: {what}" if key else what), fix
        case "extra_forbidden":
            known = _known_keys(problem["loc"])
            close = difflib.get_close_matches(location[-1], known, n=1)
            hint = f"did you mean `{close[0]}`?" if close else f"it can have {', '.join(known)}"
            return f"{key}: unknown key", hint
        case "missing":
            return f"{key}: missing", "add it"
        case "union_tag_not_found":
            tag = str(problem["ctx"]["discriminator"]).strip("'")
            return f"{key}: `{tag}` is missing", f"add `{tag}`, which says what it is"
        case "union_tag_invalid":
            context = problem["ctx"]
            tag = context["discriminator"].strip("'")
            return f"{key}: found {tag} {_shown(context['tag'])}", f"use {context['expected_tags']}"
        case _:
            return f"{key}: found {_shown(problem['input'])}", (problem["msg"][0].lower() + problem["msg"][1:]).replace(
                "tuple", "list"
            )


def _shown(value: object) -> str:
    return printable(repr(value), VALUE)


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    """The keys that are allowed beside an unknown one. Its location is followed through the schema."""
    schema = Spec.model_json_schema()
    node: dict[str, Any] = schema
    for part in location[:-1]:
        node = _resolve(node, schema)
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif "items" in node:
            node = node["items"]
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            values = node.get("patternProperties", {}).values()
            node = next(iter(values), node.get("additionalProperties") or {})
    return list(_resolve(node, schema).get("properties", {}))


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    for option in node.get("anyOf", []):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node
