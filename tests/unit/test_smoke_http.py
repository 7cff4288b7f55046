"""`eventsched smoke` over HTTP against what is no service of ours: told, never a traceback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from eventsched.errors import InvalidSpec
from eventsched.projections.smoke.checks import Failed
from eventsched.projections.smoke.http import Http


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("url", ["http://[::1", "ftp://here", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpec, match="is no address of an HTTP service"):
        Http(url, "", 1)


@pytest.mark.parametrize(("path", "token"), [("", ""), ("", "a\n"), ("", "\u2026"), ("/\u00e4", ""), ("/a b", "")])
async def test_what_is_not_ours_fails_in_words(web: str, path: str, token: str) -> None:
    with pytest.raises(Failed):
        await Http(web + path, token, 1).check_live()
