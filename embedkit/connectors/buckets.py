"""Buckets of an object store, as LanceDB uses them: is the endpoint there, and what its errors mean.

Credentials, region and endpoint come from the environment, by the names that LanceDB reads: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP.
"""

from __future__ import annotations

import os
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from embedkit.errors import StoreError

# LanceDB tries a request so often, and gives up after so many seconds; a part of a file that is being sent may take that long.
OPTIONS = {"client_max_retries": "3", "client_retry_timeout": "60", "connect_timeout": "5s", "timeout": "30s"}
_PROBE_SECONDS = 10.0
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_ALLOW = "AWS_ALLOW_HTTP"
_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN with keys that expire)"
_REFUSALS = (
    "InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied|InvalidToken|ExpiredToken|InvalidClientTokenId"
)
_UNREACHABLE = "kind: Connect|kind: Timeout|TimedOut|dns error|error sending request"


def endpoint() -> str | None:
    """Return the address of a store other than AWS's own."""
    return next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)


def check_endpoint(place: str) -> None:
    """Ask an endpoint for any answer at all: LanceDB would ask one that is silent again and again, for minutes.

    Raises:
        StoreError: it gives none, or is not encrypted and nobody said that it need not be.
    """
    address = endpoint()
    if address is None:
        return
    if address.lower().startswith("http://") and os.environ.get(_ALLOW, "").lower() not in ("true", "1"):
        raise StoreError(
            f"{place}: the endpoint {address} is not encrypted. Set {_ALLOW}=true to use it all the same"
        )
    try:
        urlopen(Request(address, method="HEAD"), timeout=_PROBE_SECONDS).close()
    except HTTPError as exc:
        exc.close()  # an answer
    except (OSError, ValueError) as exc:
        raise StoreError(f"{place}: {_unreachable(getattr(exc, 'reason', exc))}") from exc


def _unreachable(reason: object = "") -> str:
    why = f" ({reason})" if str(reason) else ""
    return (
        f"the store at {endpoint() or 'AWS'} cannot be reached{why}. Check AWS_ENDPOINT_URL and the network"
    )


def explain(said: str) -> str | None:
    """Say in a sentence what an error of LanceDB's about a bucket means; None where it is not known."""
    code = re.search(r"<Code>(.*?)</Code>", said)
    if code is not None and code[1] == "NoSuchBucket":
        return "there is no such bucket. Create it first, or check its name and AWS_ENDPOINT_URL"
    if code is not None and re.fullmatch(_REFUSALS, code[1]):
        return f"the store refuses the credentials ({code[1]}). Check {_KEYS}, and what they may do"
    if "Failed to get AWS credentials" in said:
        return f"there are no credentials. Set {_KEYS}"
    if re.search(_UNREACHABLE, said):
        return _unreachable()
    if code is not None:
        told = re.search(r"<Message>(.*?)</Message>", said)
        return f"the store says {code[1]}" + (f": {told[1]}" if told else "")
    return None
