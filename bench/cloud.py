"""The S3 and the KMS of a run, in a process of their own: `python -m bench.cloud FOLDER` prints both addresses as JSON.

KMS is moto's. S3 is not: moto parses, hashes and keeps every byte in Python, and on two cores that competes with
whatever is measured. This one writes a body from the socket to a file and knows just what exporters ask for: objects
with versions, multipart uploads, ranges. It checks no signature and no digest.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from moto.server import ThreadedMotoServer

_CHUNK = 1024 * 1024
VERSION_ID = "v1"  # an object is written once, so that one version is enough


class S3(BaseHTTPRequestHandler):
    """One connection. Objects are files of `home`, uploads under way are folders of `home`/uploads."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    home: Path

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""

    def _parts(self) -> tuple[str, Path, dict[str, str]]:
        """Key, its file, and the query."""
        url = urlsplit(self.path)
        key = unquote(url.path).lstrip("/")
        return key, self.home / quote(key, safe=""), {k: v[0] for k, v in parse_qs(url.query, True).items()}

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _tell(self, kind: str, what: str, status: int = 200, **headers: str) -> None:
        self._answer(status, f'<?xml version="1.0" encoding="UTF-8"?><{kind}>{what}</{kind}>'.encode(), **headers)

    def _error(self, status: int, code: str) -> None:
        self._tell("Error", f"<Code>{code}</Code><Message>{code}</Message>", status)

    def _receive(self, path: Path) -> None:
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            raise ValueError("bodies in signed chunks are not understood: use plain HTTP")
        left = int(self.headers["Content-Length"])
        with path.open("wb") as file:
            while left:
                data = self.rfile.read(min(left, _CHUNK))
                if not data:
                    raise ConnectionError(self.path)
                file.write(data)
                left -= len(data)

    def do_PUT(self) -> None:
        """PutObject, also with If-None-Match; UploadPart; settings of a bucket are taken as read."""
        key, path, query = self._parts()
        if "/" not in key:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(200)
        elif "uploadId" in query:
            self._receive(self.home / "uploads" / query["uploadId"] / f"{int(query['partNumber']):05d}")
            self._answer(200, ETag=f'"{query["partNumber"]}"')
        else:
            arriving = self.home / "uploads" / uuid.uuid4().hex
            self._receive(arriving)
            if self.headers.get("If-None-Match") == "*" and path.exists():
                arriving.unlink()
                self._error(412, "PreconditionFailed")
                return
            arriving.rename(path)
            self._answer(200, ETag=f'"{uuid.uuid4().hex}"', x_amz_version_id=VERSION_ID)

    def do_POST(self) -> None:
        """CreateMultipartUpload and CompleteMultipartUpload."""
        key, path, query = self._parts()
        bucket, name = (escape(part) for part in key.split("/", 1))
        where = f"<Bucket>{bucket}</Bucket><Key>{name}</Key>"
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if "uploads" in query:
            upload = uuid.uuid4().hex
            (self.home / "uploads" / upload).mkdir()
            self._tell("InitiateMultipartUploadResult", f"{where}<UploadId>{upload}</UploadId>")
            return
        upload = query["uploadId"]
        folder = self.home / "uploads" / upload
        parts = [folder / f"{int(n):05d}" for n in re.findall(r"<PartNumber>(\d+)</PartNumber>", body)]
        with parts[0].open("ab") as whole:
            for part in parts[1:]:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, _CHUNK)
        parts[0].rename(path)
        shutil.rmtree(folder)
        self._tell("CompleteMultipartUploadResult", f'{where}<ETag>"{upload}"</ETag>', x_amz_version_id=VERSION_ID)

    def do_HEAD(self) -> None:
        """HeadObject."""
        _, path, _ = self._parts()
        if not path.exists():
            self._error(404, "NoSuchKey")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.send_header("ETag", f'"{path.stat().st_ino}"')
        self.send_header("x-amz-version-id", VERSION_ID)
        self.end_headers()

    def do_GET(self) -> None:
        """GetObject, also a range of it."""
        _, path, _ = self._parts()
        if not path.exists():
            self._error(404, "NoSuchKey")
            return
        size = path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, size - 1
        if asked and asked[1]:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        elif asked:
            first = max(0, size - int(asked[2]))
        if asked and first > last:
            self._error(416, "InvalidRange")
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", f'"{path.stat().st_ino}"')
        self.send_header("x-amz-version-id", VERSION_ID)
        self.end_headers()
        with path.open("rb") as file:
            self.wfile.flush()
            self.connection.sendfile(file, first, last - first + 1)

    def do_DELETE(self) -> None:
        """DeleteObject and AbortMultipartUpload."""
        _, path, query = self._parts()
        if "uploadId" in query:
            shutil.rmtree(self.home / "uploads" / query["uploadId"], ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        self._answer(204)


def main() -> None:
    """Serve until stdin is closed."""
    S3.home = Path(sys.argv[1])
    (S3.home / "uploads").mkdir(parents=True, exist_ok=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto tells every request
    s3 = ThreadingHTTPServer(("127.0.0.1", 0), S3)
    s3.daemon_threads = True
    Thread(target=s3.serve_forever, daemon=True).start()
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    print(json.dumps({"s3": f"http://127.0.0.1:{s3.server_port}", "moto": f"http://127.0.0.1:{port}"}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
