"""Somebody else's issuer: one key set, over TLS."""

import http.server
import json
import ssl
import threading

from cryptography.hazmat.primitives.asymmetric import rsa

from gate import b64url


class Issuer:
    """Serves /keys.json on loopback."""

    def __init__(self, authority):
        public = rsa.generate_private_key(65537, 2048).public_key().public_numbers()
        self.kid = "partner-1"
        keys = json.dumps(
            {
                "keys": [
                    {
                        "kty": "RSA",
                        "alg": "RS256",
                        "use": "sig",
                        "kid": self.kid,
                        "n": b64url(public.n.to_bytes(256, "big")),
                        "e": b64url(public.e.to_bytes(3, "big")),
                    }
                ]
            }
        ).encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            """One document."""

            def do_GET(self):
                """Answers it."""
                self.send_response(200 if self.path == "/keys.json" else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(keys)))
                self.end_headers()
                self.wfile.write(keys)

            def log_message(self, *_):
                """Says nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*authority.certificate("issuer", ["localhost"]))
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        """Ends it."""
        self.server.shutdown()
        self.server.server_close()
