"""A server of some routes within the test's own process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from embedkit.extras import load_extra
from embedkit.serving.http.access import Access
from embedkit.serving.http.app import App
from embedkit.serving.http.messages import HttpRequest, Route
from embedkit.serving.limits import Limits

OPEN = Access()


@contextmanager
def served(
    routes: Sequence[Route] | Callable[[App], Sequence[Route]],
    access: Access = OPEN,
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve routes, or what makes them for the application, at a free port; yields the address, without a slash at its end."""
    import uvicorn

    app = App((), access, limits or Limits())
    app.routes = tuple(routes(app) if callable(routes) else routes)
    serve = load_extra("serve", purpose="the test")
    opened = serve.listen("127.0.0.1", 0)
    config = uvicorn.Config(
        serve.asgi_app(app, HttpRequest), log_config=None, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        opened.close()
