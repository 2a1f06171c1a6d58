"""Serving tools to language models by the Model Context Protocol, on standard input and output.

A tool works in a thread of its own, so that the server goes on reading: calls may be cancelled, and run side by side.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, Protocol

import anyio
import anyio.from_thread
import anyio.to_thread
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)

from embedkit.errors import EmbedkitError

_PARENT_SECONDS = 0.5  # between two looks at whether the parent is still there


class ServedTool(Protocol):
    """A tool that reads and changes nothing: `run` gets arguments that fit the schema, and returns a text."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def description(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, Any]: ...  # Any: a JSON schema

    @property
    def run(self) -> Callable[[Mapping[str, Any], _Call], str]: ...  # Any: JSON


class _Call:
    """One call, as the tool's thread sees it."""

    def __init__(self, report: Callable[[float, float | None, str | None], Any]) -> None:  # Any: a coroutine
        self._report = report
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()

    def progress(self, done: float, total: float | None, message: str) -> None:
        """Tell a client that asked for it how far the call is."""
        if not self.cancelled:
            with suppress(RuntimeError):  # the server has ended meanwhile
                anyio.from_thread.run(self._report, done, total, message)


def serve(tools: Sequence[ServedTool], *, name: str, version: str, instructions: str) -> None:
    """Serve tools until standard input ends or the parent process does.

    Nothing but the protocol reaches standard output: what else is printed meanwhile goes to standard error.
    """
    server = _server({tool.name: tool for tool in tools}, name, version, instructions)

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    _end_with_parent()
    try:
        anyio.run(run)
    except* BrokenPipeError:  # the client has gone
        pass


def _server(tools: Mapping[str, ServedTool], name: str, version: str, instructions: str) -> Server[Any]:
    validators = {each: Draft202012Validator(tool.schema) for each, tool in tools.items()}

    async def list_tools(ctx: ServerRequestContext, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[_described(tool) for tool in tools.values()])

    async def call_tool(ctx: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        tool = tools.get(params.name)
        if tool is None:
            raise MCPError(
                code=INVALID_PARAMS,
                message=f"there is no tool {params.name!r}; there are {', '.join(tools)}",
            )
        arguments = params.arguments or {}
        # A misspelled name comes before the one that is missing for it.
        faults = sorted(
            validators[tool.name].iter_errors(arguments),
            key=lambda fault: fault.validator != "additionalProperties",
        )
        if faults:
            return _answer(f"{tool.name}: {_explained(faults[0], tool.schema)}", is_error=True)
        call = _Call(ctx.session.report_progress)
        try:
            return _answer(await anyio.to_thread.run_sync(tool.run, arguments, call, abandon_on_cancel=True))
        except EmbedkitError as exc:
            return _answer(exc.message, is_error=True)  # without options: the model has none
        finally:
            call.cancel()  # where the thread still works, nobody waits for it

    return Server(
        name,
        version=version,
        instructions=instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _described(tool: ServedTool) -> Tool:
    hints = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
    return Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(tool.schema),
        annotations=hints,
    )


def _answer(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)], is_error=is_error)


def _explained(fault: ValidationError, schema: Mapping[str, Any]) -> str:
    """Say which argument is wrong, what it is and what it must be."""
    known = list(schema["properties"])
    if fault.validator == "additionalProperties":
        unknown = [each for each in fault.instance if each not in known]
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        return f"there is no argument {unknown[0]!r}; {hint}"
    if fault.validator == "required":
        missing = [each for each in fault.validator_value if each not in fault.instance]
        return f"the argument {missing[0]!r} is missing"
    where = ".".join(map(str, fault.absolute_path))
    wanted = {
        "type": f"must be of type {fault.validator_value}",
        "enum": f"must be one of {fault.validator_value}",
        "minimum": f"must be at least {fault.validator_value}",
        "maximum": f"must be at most {fault.validator_value}",
        "minLength": "must not be empty",
    }
    return f"{where} is {fault.instance!r}; it {wanted.get(str(fault.validator), fault.message)}"


def _end_with_parent() -> None:
    """End this process when its parent does: standard input may be held open by others that inherited it.

    The kernel's own signal for that (PR_SET_PDEATHSIG) comes with the end of the thread that started us, and clients start
    servers in threads.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_SECONDS)
        os._exit(0)  # indexes survive any end

    threading.Thread(target=watch, daemon=True, name="parent").start()
