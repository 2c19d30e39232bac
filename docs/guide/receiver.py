#!/usr/bin/env python3
"""Takes what Sluicegate tells, checks its signature, and prints each new event once. SLUICEGATE_SECRETS has the secrets
with blanks between them; the first argument is the port."""
import hashlib, hmac, http.server, json, os, sys, time

SECRETS = [secret.encode() for secret in os.environ["SLUICEGATE_SECRETS"].split()]
seen = {}  # Event ids; keep them where they outlive the process, in the transaction that does the work.


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        timestamp, event_id = self.headers["Sluicegate-Timestamp"], self.headers["Sluicegate-Event-Id"]
        signed = b".".join([timestamp.encode(), event_id.encode(), body])
        sent = [part.strip() for part in self.headers.get("Sluicegate-Signature", "").split(",")]
        ours = ["v1=" + hmac.new(secret, signed, hashlib.sha256).hexdigest() for secret in SECRETS]
        genuine = any(hmac.compare_digest(one, other) for one in ours for other in sent)
        if not genuine or abs(time.time() - int(timestamp)) > 300:
            return self.answer(401)
        told = json.loads(body)
        for event in told.get("events", [told]):
            if seen.setdefault(event["event_id"], event) is event:
                print(json.dumps(event) + "\n", end="", flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
