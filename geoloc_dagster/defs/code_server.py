"""`python -m geoloc_dagster.defs.code_server …`: Dagster's code server (`dagster api grpc …`), which does not outlive its watch.

One thread of Dagster's code server notices workers that have died. If the database cannot be asked at that moment, the thread
ends with an error and nobody notices anything from then on: workers that are gone count as alive for ever. Here the
server ends with that thread. Whatever started it starts it again, and its runs are retried.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

WATCH = "grpc-server-cleanup"  # Dagster's name of that thread
LOST_WATCH = 70  # exit code


def end_with_the_watch(lost: threading.ExceptHookArgs) -> None:
    """End this process if the thread that has failed was the one that watches the workers; say so in any case."""
    threading.__excepthook__(lost)
    if lost.thread is not None and lost.thread.name == WATCH:
        logging.getLogger(__name__).critical("the watch over the workers has failed; the code server ends, to be started again")
        os._exit(LOST_WATCH)


def main() -> None:
    """Serve until told to stop."""
    from dagster._cli import main as dagster_command

    threading.excepthook = end_with_the_watch
    sys.argv = ["dagster", "api", "grpc", *sys.argv[1:]]
    dagster_command()


if __name__ == "__main__":
    main()
