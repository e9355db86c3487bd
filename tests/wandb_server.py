"""A small stand-in for a W&B server on loopback: enough of its API to take runs and to have them resumed."""

import gzip
import http.server
import json
import re
import threading


class WandbServer:
    """Keeps what it is sent, by run id: `history` rows, `config`, `summary`, `group`, `files`."""

    def __init__(self):
        self.runs = {}
        self.queries = []
        handler = type("Handler", (_Handler,), {"server_state": self})
        self._server = _Quiet(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    def run(self, name):
        return self.runs.setdefault(
            name, {"history": {}, "config": {}, "summary": {}, "group": None, "files": [], "finished": 0}
        )

    def answer(self, query, variables):
        name = re.search(r"(query|mutation)\s+(\w+)", query).group(2)
        self.queries.append(name)
        project = {"id": "p", "name": variables.get("project"), "entity": {"id": "e", "name": "tester"}}
        if name == "RunResumeStatus":
            return {"model": {**project, "bucket": self._bucket(variables["name"], project)}}
        if name == "UpsertBucket":
            run = self.run(variables["name"])
            run["config"] |= json.loads(variables.get("config") or "{}")
            run["group"] = variables.get("groupName") or run["group"]
            bucket = {"id": "b", "name": variables["name"], "displayName": variables.get("displayName")}
            return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        if name == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/upload/{f}"} for f in variables["files"]]
            self.run(variables["run"])["files"] += variables["files"]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        return {"serverInfo": {"features": []}}

    def _bucket(self, name, project):
        """Return a run as a server tells of it, so that its writer goes on where it was."""
        run = self.runs.get(name)
        if run is None or not run["history"]:
            return None
        tail = json.dumps([json.dumps(run["history"][max(run["history"])])])
        return {
            "id": "b", "name": name, "summaryMetrics": json.dumps(run["summary"]), "displayName": name,
            "logLineCount": 0, "historyLineCount": len(run["history"]), "eventsLineCount": 0, "historyTail": tail,
            "eventsTail": "[]", "config": json.dumps(run["config"]), "tags": [], "wandbConfig": '{"t": 1}',
        }  # fmt: skip

    def stream(self, name, body):
        run = self.run(name)
        for file, part in body.get("files", {}).items():
            lines = [json.loads(line) for line in part["content"]]
            if file == "wandb-history.jsonl":
                run["history"] |= {part["offset"] + i: line for i, line in enumerate(lines)}
            elif file == "wandb-summary.json":
                run["summary"] = lines[-1]
        run["finished"] += bool(body.get("complete"))


class _Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        """A client that hangs up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WandbServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._reply({})

    def do_PUT(self):
        self._body()
        self._reply({})

    def do_POST(self):
        data = self._body()
        if data[:1] not in (b"{", b""):
            self._reply({})  # telemetry
            return
        body = json.loads(data or b"{}")
        if self.path.endswith("/graphql"):
            self._reply({"data": self.server_state.answer(body["query"], body.get("variables") or {})})
            return
        if match := re.match(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            self.server_state.stream(match[1], body)
        self._reply({})

    def _body(self):
        data = self.rfile.read(int(self.headers.get("content-length") or 0))
        return gzip.decompress(data) if self.headers.get("content-encoding") == "gzip" else data

    def _reply(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
