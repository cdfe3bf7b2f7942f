"""The console page's web site below `/console`: its static files and, below `/console/api`, the data behind it as JSON.

It only reads; a turn is started by the page through InvokeAgent, as every caller does. It forbids its own page
everything but files and data from here; pages of other sites do not get this far (`loopback.py`).
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from botocore.exceptions import BotoCoreError, ClientError

from local.console.console_data import ConsoleData, NotThere
from local.gateway.proxy_integration import Answer, Request

FILES = Path(__file__).resolve().parent / "page"

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

_SECURITY = [
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

Read = Callable[[ConsoleData, Mapping[str, str]], Any]

_ROUTES: tuple[tuple[re.Pattern[str], Read], ...] = tuple(
    (re.compile(pattern), read)
    for pattern, read in (
        ("overview", lambda data, at: data.overview()),
        ("definition", lambda data, at: data.current_definition()),
        ("circuits", lambda data, at: data.circuits()),
        ("turns", lambda data, at: data.turns()),
        ("turns/(?P<turn>[^/]+)", lambda data, at: data.turn(at["turn"])),
        ("turns/(?P<turn>[^/]+)/definition", lambda data, at: data.definition(at["turn"])),
        (r"turns/(?P<turn>[^/]+)/visits/(?P<visit>\d{1,9})", lambda data, at: data.visit(at["turn"], int(at["visit"]))),
        (r"turns/(?P<turn>[^/]+)/steps/(?P<step>\d{1,9})", lambda data, at: data.step(at["turn"], int(at["step"]))),
        ("turns/(?P<turn>[^/]+)/events/(?P<event>[^/]+)", lambda data, at: data.event(at["turn"], at["event"])),
        ("stores/(?P<store>[^/]+)/actors", lambda data, at: data.actors(at["store"])),
        (
            "stores/(?P<store>[^/]+)/actors/(?P<actor>[^/]+)/memory",
            lambda data, at: data.memory(at["store"], at["actor"]),
        ),
        (
            "stores/(?P<store>[^/]+)/actors/(?P<actor>[^/]+)/sessions",
            lambda data, at: data.sessions(at["store"], at["actor"]),
        ),
        (
            "stores/(?P<store>[^/]+)/actors/(?P<actor>[^/]+)/sessions/(?P<session>[^/]+)",
            lambda data, at: data.session(at["store"], at["actor"], at["session"]),
        ),
    )
)
"""The data's paths; each variable is percent-encoded in the path."""


class ConsoleSite:
    """Answers the requests for `/console` and what is below it. `on_problem` is told, in a line, what went wrong."""

    def __init__(self, data: ConsoleData, on_problem: Callable[[str], None]) -> None:
        self._data = data
        self._on_problem = on_problem

    def answer(self, request: Request) -> Answer | None:
        """None for a request that is not the site's. A browser that asks for the API's root is sent to the console."""
        if request.path == "/" and request.method == "GET" and "text/html" in (request.header("Accept") or ""):
            return Answer(302, [*_SECURITY, ("Location", "/console/")])
        if request.path != "/console" and not request.path.startswith("/console/"):
            return None
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "The console only reads.", ("Allow", "GET, HEAD"))
        if request.path == "/console":
            return Answer(308, [*_SECURITY, ("Location", "/console/")])
        if request.path.startswith("/console/api/"):
            return self._data_answer(request)
        return _file(request.path.removeprefix("/console/") or "index.html")

    def _data_answer(self, request: Request) -> Answer:
        path = request.path.removeprefix("/console/api/")
        for pattern, read in _ROUTES:
            matched = pattern.fullmatch(path)
            if matched is None:
                continue
            try:
                value = read(self._data, {name: unquote(text) for name, text in matched.groupdict().items()})
            except NotThere as missing:
                return _refusal(404, str(missing))
            except (BotoCoreError, ClientError) as error:
                self._on_problem(f"the console could not read {path}: {error}")
                return _refusal(502, f"The offline AWS did not answer: {error}")
            except Exception as error:  # the edge: the page is told, and the log
                self._on_problem(f"the console could not show {path}: {type(error).__name__}: {error}")
                return _refusal(500, f"The console could not read this: {type(error).__name__}: {error}")
            return _json(value, request.header("If-None-Match"))
        return _refusal(404, f"The console has no data at {path}.")


def _file(name: str) -> Answer:
    """One of the page's files: they lie in one folder, so that no path has to be resolved."""
    content_type = _TYPES.get(Path(name).suffix)
    path = FILES / name
    if content_type is None or path.name != name or not path.is_file():
        return _refusal(404, f"The console has no file {name}.")
    headers = [*_SECURITY, ("Content-Type", content_type), ("Cache-Control", "no-cache")]
    return Answer(200, headers, path.read_bytes())


def _json(value: Any, known: str | None) -> Answer:
    """The value; or 304 if the page has just this one already, as its If-None-Match says."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = [*_SECURITY, ("ETag", tag), ("Cache-Control", "no-store")]
    if known == tag:
        return Answer(304, headers)
    return Answer(200, [*headers, ("Content-Type", "application/json")], body)


def _refusal(status: int, message: str, *headers: tuple[str, str]) -> Answer:
    body = json.dumps({"message": message}, ensure_ascii=False).encode()
    return Answer(status, [*_SECURITY, *headers, ("Content-Type", "application/json")], body)
