"""An explorer on a port of this machine, in a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI


@contextlib.contextmanager
def running(app: FastAPI) -> Generator[int]:
    """The port on which it answers, with its release loaded."""
    app.state.explorer.serving.refresh()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it answered"
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
