"""What the metadata of an index hold: kinds, commonest values, least and largest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embedkit.data.records import Document
from indexes import FieldValues, Index, Settings, field_values

METADATA: list[dict[str, Any]] = [
    {"year": 2020, "lang": "en", "tags": ["a", "b"], "draft": True, "author": {"name": "x"}},
    {"year": 2021.5, "lang": "de", "tags": ["b"], "draft": False, "odd": None},
    {"year": 2019, "lang": "en", "tags": [], "draft": False, "long": "x" * 200},
    {"year": "unknown", 'a "b"': 3},
]


def test_fields_are_what_most_documents_hold(tmp_path: Path) -> None:
    with Index.create(tmp_path / "i", Settings(dimension=2)) as index:
        assert field_values(index) == []
        documents = [Document(str(n), "a", metadata=metadata) for n, metadata in enumerate(METADATA)]
        index.add(documents, np.ones((4, 2), np.float32))
        found = {field.name: field for field in field_values(index)}
    assert sorted(found) == [
        'a "b"',
        "draft",
        "lang",
        "long",
        "tags",
        "year",
    ]  # no object, nothing that is null
    assert found["year"] == FieldValues(
        name="year", kind="number", values=[2020, 2021.5, 2019], least=2019, largest=2021.5
    )
    assert found["lang"] == FieldValues(
        name="lang", kind="text", values=["en", "de"], least="de", largest="en"
    )
    assert found["tags"] == FieldValues(name="tags", kind="list", values=["b", "a"])
    assert found["draft"] == FieldValues(name="draft", kind="flag", values=[False, True])
    assert found["long"].values == []  # too long for a choice
    assert found['a "b"'].values == [3]
