"""An application of the kind that the gate is put in front of: it believes what its proxy tells it, and knows nothing of tokens. WSGI, standard
library only. `python3 legacy.py SOCKET` serves it on a socket in the file system; with `ISSUER AUDIENCE KEYS` behind it (KEYS: a file with the
gate's JWK Set) nobody is let in without the gate's token, and the application itself is still the same.
"""

import json
import os
import pathlib
import socket
import socketserver
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

NOTES = []


def application(environ, start):
    """A list of notes: `GET /notes`, `POST /notes`; `GET /echo` answers what arrived."""
    who = environ.get("HTTP_X_PORTCULLIS_SUBJECT") or environ.get("HTTP_X_FORWARDED_USER") or "nobody"
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if path == "/echo":
        headers = {name[5:].lower().replace("_", "-"): value for name, value in environ.items() if name.startswith("HTTP_")}
        answer = 200, {"method": method, "path": path, "query": environ["QUERY_STRING"], "who": who, "headers": headers}
    elif path == "/notes" and method == "POST":
        size = int(environ.get("CONTENT_LENGTH") or 0)
        NOTES.append({"who": who, "text": environ["wsgi.input"].read(size).decode("utf-8", "replace")})
        answer = 201, NOTES[-1]
    elif path == "/notes":
        answer = 200, NOTES
    else:
        answer = 404, {"error": "no such page"}
    return respond(start, *answer)


def respond(start, status, body):
    text = json.dumps(body).encode()
    start(f"{status} -", [("Content-Type", "application/json"), ("Content-Length", str(len(text))), ("Server", "legacy/1.0")])
    return [text]


def guarded(inner, issuer, audience, keys):
    """The application behind the check of docs/recipes/ten_lines.py."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "docs/recipes"))
    from ten_lines import caller

    def outer(environ, start):
        with open(keys, encoding="utf-8") as file:
            known = json.load(file)
        claims = caller(environ.get("HTTP_AUTHORIZATION"), known, issuer, audience)
        if claims is None or claims["sub"] != environ.get("HTTP_X_PORTCULLIS_SUBJECT"):
            return respond(start, 401, {"error": "not through the gate"})
        return inner(environ, start)

    return outer


class Quiet(WSGIRequestHandler):
    def address_string(self):
        return "link"

    def log_message(self, *_):
        pass


class Server(WSGIServer):
    address_family = socket.AF_UNIX

    def server_bind(self):
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "legacy", 80
        self.setup_environ()

    def get_request(self):
        connection, _ = self.socket.accept()
        return connection, ("link", 0)


if __name__ == "__main__":
    place, *check = sys.argv[1:]
    os.umask(0o077)
    with Server(place, Quiet) as server:
        server.set_app(guarded(application, *check) if check else application)
        server.serve_forever()
