"""Which keys a configuration file may have at its top, and which of all keys a project's file may set.

A project's file comes with files of other people. It may say how the project is best searched, by the commands that read; it may
not make a command write, delete, start a program, or read more than it would read without it. So no key is allowed that names an
output, an index, a cache or a recipe, that answers a question for the user, that chooses how the answer is printed, that lets
hidden or ignored files be read, or that has a graph of the model's folder executed (`backend`); and of a model, only a folder of
the project itself or a shipped one.
"""

from __future__ import annotations

# Options that more than one command has, and that mean the same in all of them.
SHARED = (
    "backend",
    "cache-limit",
    "candidates",
    "dense-weight",
    "device",
    "force-precision",
    "fusion",
    "hidden",
    "id-field",
    "json",
    "max-filesize",
    "min-score",
    "mode",
    "model",
    "no-ignore",
    "precision",
    "quiet",
    "refresh",
    "rerank",
    "rerank-weight",
    "text-field",
    "text-unit",
    "text-weight",
    "title-field",
    "top-k",
    "verbose",
)
WITH_SHARED = ("grep", "encode")  # commands that together have all of these
# What a project's file may set, at its top or for the commands below.
FROM_PROJECT = (
    "candidates",
    "chunk-overlap",
    "chunk-tokens",
    "context",
    "dense-weight",
    "device",
    "fusion",
    "glob",
    "group",
    "id-field",
    "max-seq-length",
    "merge-tokens",
    "min-score",
    "mode",
    "model",
    "passages",
    "precision",
    "refresh",
    "rerank",
    "rerank-weight",
    "storage",
    "text-field",
    "text-unit",
    "text-weight",
    "title-field",
    "tokens",
    "top-k",
    "truncate-dim",
    "type",
)
PROJECT_COMMANDS = (
    "encode",
    "explain",
    "grep",
    "index add",
    "index build",
    "mcp",
    "pairs",
    "rerank",
    "search",
)
# Keys whose values are models.
MODELS = ("model", "rerank")
