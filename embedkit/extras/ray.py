"""Ray Core: objects that live in worker processes of a cluster (actors), and waiting for what they answer."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from embedkit.errors import DeviceError

Ref = Any  # ray.ObjectRef, which Ray exports without types
Handle = Any  # an actor, as above
_KNOCK_SECONDS = 10.0


class GoneError(Exception):
    """An actor has died, or its node has."""


class _Actor:
    """Holds what `make` returns, and calls its methods by name."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._made = make()

    def call(self, name: str, *arguments: object) -> object:
        return getattr(self._made, name)(*arguments)


def connect(address: str | None) -> None:
    """Join the cluster at an address; None: that of $RAY_ADDRESS, or one that runs here, or a new one on this machine.

    Raises:
        DeviceError: there is none, or it is of another version.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    new = {} if address else {"include_dashboard": False}
    try:
        _knock(address or os.environ.get("RAY_ADDRESS", ""))
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **new)
    except (ConnectionError, RuntimeError, ValueError, RayError, OSError) as exc:
        place = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise DeviceError(
            f"Ray cannot be reached at {place} ({exc}). Start it there with: ray start --head",
            ", or leave out --address",
        ) from exc


def _knock(address: str) -> None:
    """See whether somebody listens at host:port: Ray itself tries for minutes.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


def disconnect() -> None:
    ray.shutdown()


def nodes() -> list[str]:
    """Return the ids of the nodes that are alive."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def capacity(cpus: float, gpus: float, memory: int | None) -> int:
    """Return how many actors with such needs the cluster holds, whether or not others are there now."""
    count = 0
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        has = node["Resources"]
        fits = [has.get("CPU", 0) // cpus]
        fits += [has.get("GPU", 0) // gpus] if gpus else []
        fits += [has.get("memory", 0) // memory] if memory else []
        count += int(min(fits))
    return count


def start(
    make: Callable[[], object],
    *,
    cpus: float,
    gpus: float,
    memory: int | None,
    variables: dict[str, str],
    avoid: str = "",
) -> Handle:
    """Start an actor, on another node than `avoid` where there is one. It waits until the cluster has room for it."""
    strategy: Any = "SPREAD"  # a name or an object
    others = [node for node in nodes() if node != avoid] if avoid else []
    if others:
        strategy = NodeAffinitySchedulingStrategy(others[0], soft=True)
    return (
        ray.remote(_Actor)
        .options(
            num_cpus=cpus,
            num_gpus=gpus,
            memory=memory,
            max_restarts=0,
            max_concurrency=2,  # one call that works, and one that asks how far it is
            scheduling_strategy=strategy,
            runtime_env={"env_vars": variables},
        )
        .remote(make)
    )


def call(handle: Handle, name: str, *arguments: object) -> Ref:
    """Call a method of what an actor holds; returns at once."""
    return handle.call.remote(name, *arguments)


def ready(refs: Sequence[Ref], seconds: float) -> list[Ref]:
    """Wait until one of some answers has come; return all that have."""
    if not refs:
        return []
    if not ray.wait(list(refs), num_returns=1, timeout=seconds)[0]:
        return []
    found: list[Ref] = ray.wait(list(refs), num_returns=len(refs), timeout=0)[0]
    return found


def answer(ref: Ref, seconds: float | None = None) -> Any:  # Any: what the method returned
    """Return an answer.

    Raises:
        GoneError: the actor or its node has died; the message says how.
        TimeoutError: it has not come in time.
        Exception: what the method raised.
    """
    try:
        return ray.get(ref, timeout=seconds)
    except GetTimeoutError as exc:
        raise TimeoutError(str(exc)) from exc
    except RayTaskError as exc:
        raise exc.cause if isinstance(exc.cause, Exception) else exc from exc
    except (RayActorError, RayError) as exc:
        raise GoneError(" ".join(str(exc).split())[:400]) from exc


def node_here() -> str:
    """Return the id of the node that this process runs on."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def kill(handle: Handle) -> None:
    with suppress(RayError, ValueError):
        ray.kill(handle, no_restart=True)
