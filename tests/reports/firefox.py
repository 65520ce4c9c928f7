"""Drives Firefox by its own WebDriver BiDi protocol: Debian has no geckodriver, and Playwright drives no ESR."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.load_helpers import wait_until

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
NEEDS_FIREFOX = pytest.mark.skipif(
    FIREFOX is None, reason="there is no Firefox here, and only root may install it: apt-get install firefox-esr"
)
_ADDRESS = re.compile(r"BiDi listening on (ws://\S+)\n")


class Firefox:
    """A tab of a running Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count()
        self._call("session.new", capabilities={})
        self._tab = self._call("browsingContext.getTree")["contexts"][0]["context"]

    def open(self, url: str) -> None:
        """Open a page, and wait until it is loaded."""
        self._call("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; a promise is awaited."""
        awaited = f"Promise.resolve({expression}).then(value => JSON.stringify(value ?? null))"
        target = {"context": self._tab}
        answer = self._call("script.evaluate", expression=awaited, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def _call(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._connection.recv(timeout=30))).get("id") != number:
            pass
        assert answer["type"] == "success", answer
        return answer["result"]


@contextmanager
def running_firefox(folder: Path) -> Iterator[Firefox]:
    """Run Firefox with a new profile until the block ends."""
    profile, log = folder / "profile", folder / "firefox.log"
    profile.mkdir()
    command = [str(FIREFOX), "--headless", "--remote-debugging-port", "0", "--profile", str(profile), "about:blank"]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: _ADDRESS.search(log.read_text()) is not None)
            [address] = _ADDRESS.findall(log.read_text())
            with connect(f"{address}/session", proxy=None) as connection:
                yield Firefox(connection)
        finally:
            process.terminate()
