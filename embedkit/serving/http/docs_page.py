"""The page at /docs: the OpenAPI document as HTML, with nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]  # Any: JSON
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --accent: light-dark(#0550ae, #79b8ff); }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: .5rem; margin: .5rem 0; }
summary { cursor: pointer; padding: .5rem .75rem; overflow-wrap: anywhere; }
summary:focus-visible { outline: 2px solid var(--accent); border-radius: .5rem; }
details > div { padding: 0 .75rem .75rem; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
summary code { font-weight: 600; color: var(--accent); }
pre { background: var(--soft); padding: .6rem; border-radius: .4rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
td:nth-child(2) code { overflow-wrap: anywhere; }
a { color: var(--accent); }
"""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# What stands in examples for a field of this name, where one must be given.
_SAMPLES: Mapping[str, Any] = {  # Any: JSON
    "query": "who plays the piano",
    "source_sentence": "who plays the piano",
    "model": "embedkit-small",
    "id": "notes.md",
}
_TEXTS = ["a girl plays the piano", "the dog sleeps"]


def docs_page(document: Schema) -> str:
    """Write the page of an OpenAPI document."""
    info, groups = document["info"], dict[str, list[str]]()
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = "".join(_route(method.upper(), path, operation, schemas))
            groups.setdefault(operation["tags"][0], []).append(shown)
    sections = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(routes)}" for tag, routes in groups.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(info['title'])}: routes</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(info['title'])} {html.escape(info['version'])}</h1><p>{html.escape(info['description'])}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{sections}</main></body></html>'
    )


def _route(method: str, path: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    yield f"<details><summary><code>{method} {html.escape(path)}</code> {html.escape(operation['summary'])}</summary><div>"
    about = operation.get("description", "")
    yield "".join(f"<p>{_prose(part)}</p>" for part in about.split("\n\n") if part)
    wanted = _body(operation.get("requestBody"), schemas)
    yield f"<pre>{html.escape(_example(method, path, wanted, schemas))}</pre>"
    if wanted is not None:
        yield "<h3>Body</h3>" + _fields(wanted, schemas, defaults=True)
    given = _body(operation["responses"]["200"], schemas)
    if given is not None:
        yield "<h3>Answer</h3>"
        shown = given.get("description", "")
        yield f"<p>{_prose(shown)}</p>" if shown else ""
        yield (
            _fields(given, schemas)
            if "properties" in given
            else f"<p><code>{html.escape(_kind(given, schemas))}</code></p>"
        )
    errors = operation["responses"]["default"]["content"]["application/json"]["example"]
    yield f"<h3>Errors</h3><pre>{html.escape(json.dumps(errors))}</pre></div></details>"


def _prose(text: str) -> str:
    """Escape text, and set what stands in backticks as code."""
    parts = html.escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _body(holder: Schema | None, schemas: Schema) -> Schema | None:
    if holder is None or "content" not in holder:
        return None
    return _resolved(holder["content"]["application/json"]["schema"], schemas)


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    found: Schema = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _fields(schema: Schema, schemas: Schema, *, defaults: bool = False) -> str:
    required = schema.get("required", ())
    head = ["field", "type", *(["default"] if defaults else [])]
    rows = []
    for name, field in schema["properties"].items():
        default = "required" if name in required else json.dumps(field.get("default"))
        cells = [f"<code>{html.escape(name)}</code>", f"<code>{html.escape(_kind(field, schemas))}</code>"]
        cells += [html.escape(default)] if defaults else []
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "".join(f'<th scope="col">{name}</th>' for name in head)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _kind(schema: Schema, schemas: Schema, depth: int = 0) -> str:
    """Name the type that a schema describes, on one line."""
    if "$ref" in schema:
        target = _resolved(schema, schemas)
        names = target.get("properties")
        if names is None or depth > 2:
            return str(schema["$ref"].rpartition("/")[2])
        return (
            "{"
            + ", ".join(f"{name}: {_kind(each, schemas, depth + 1)}" for name, each in names.items())
            + "}"
        )
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_kind(each, schemas, depth) for each in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return " | ".join(json.dumps(each) for each in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items', {}), schemas, depth)}]"
    return str(schema.get("type", "any"))


def _example(method: str, path: str, wanted: Schema | None, schemas: Schema) -> str:
    line = f"curl http://localhost:8080{path}"
    if wanted is None:
        return line if method == "GET" else f"{line} -X {method}"
    return f"{line} -d '{json.dumps(sample(wanted, schemas))}'"


def sample(schema: Schema, schemas: Schema) -> Mapping[str, Any]:  # Any: JSON
    """Return the smallest body that a schema describes."""
    fields = schema["properties"]
    names = schema.get("required", ()) or list(fields)[:1]
    return {name: _value(name, fields[name], schemas) for name in names}


def _value(name: str, schema: Schema, schemas: Schema) -> Any:  # Any: JSON
    schema = _resolved(schema, schemas)
    if "anyOf" in schema:
        schema = _resolved(schema["anyOf"][0], schemas)
    if "properties" in schema:
        return sample(schema, schemas)
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "array":
            items = schema.get("items", {})
            first = _value(name, items, schemas)
            return _TEXTS if isinstance(first, str) else [first]
        case "integer" | "number":
            return 1
        case "boolean":
            return False
        case "object":
            return {}
    return _SAMPLES.get(name, _TEXTS[0])
