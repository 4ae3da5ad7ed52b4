"""`lighttrack download` from a local server that interrupts, has no range support, or sends another file."""

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.export import download as module
from lighttrack_ros.export.download import blob_name, download

CONTENT = np.random.default_rng(1).bytes(300_000)
BLOB = hashlib.sha1(b"blob 300000\0" + CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    content = CONTENT
    ranges = True
    cut_after: list[int]  # bytes of each of the next answers before the connection breaks
    asked: list[str]  # the Range header of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        content = self.server.content
        if start >= len(content):
            self.send_error(416 if content else 404)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        body = content[start:]
        self.wfile.write(body[: self.server.cut_after.pop(0)] if self.server.cut_after else body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    running.cut_after, running.asked = [], []
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_the_blob_id_equals_gits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:1000])
    assert blob_name(path) == subprocess.check_output(["git", "hash-object", path], text=True).strip()


def test_a_file_is_downloaded_once(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file.pth"
    for _ in range(2):
        assert download(server.url, BLOB, target).read_bytes() == CONTENT
    assert server.asked == [""]
    assert [path.name for path in target.parent.iterdir()] == ["file.pth"]


def test_an_interrupted_download_resumes(server: Server, tmp_path: Path) -> None:
    server.cut_after = [100_000, 50_000]
    assert download(server.url, BLOB, tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=150000-"]


def test_a_part_of_an_earlier_command_is_used(server: Server, tmp_path: Path) -> None:
    server.cut_after = [70_000, 0]
    with pytest.raises(LightTrackError, match="run the same command again"):
        download(server.url, BLOB, tmp_path / "file.pth")
    assert (tmp_path / "file.pth.part").stat().st_size == 70_000
    assert download(server.url, BLOB, tmp_path / "file.pth").read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=70000-"


def test_a_complete_part_is_accepted(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(CONTENT)
    assert download(server.url, BLOB, tmp_path / "file.pth").read_bytes() == CONTENT


def test_without_range_support_the_download_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.pth.part").write_bytes(CONTENT[:1234])
    server.ranges = False
    assert download(server.url, BLOB, tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_file_with_other_content_is_refused_and_deleted(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(LightTrackError, match=f"expected {BLOB}"):
        download(server.url, BLOB, tmp_path / "file.pth")
    assert list(tmp_path.iterdir()) == []
    server.content = CONTENT
    assert download(server.url, BLOB, tmp_path / "file.pth").read_bytes() == CONTENT


def test_a_missing_file_is_an_error(server: Server, tmp_path: Path) -> None:
    server.content = b""
    with pytest.raises(LightTrackError, match="answers 404"):
        download(server.url, BLOB, tmp_path / "file.pth")


def test_without_a_network_the_error_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["download", "lighttrack_mobile", "--output", str(tmp_path), "--url", "http://127.0.0.1:9/x.pth"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no connection" in error


def test_the_command_imports_the_downloaded_file(
    server: Server, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    weights = shared / "models/LightTrackM.safetensors"
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(weights)}, tmp_path / "LightTrackM.pth")
    server.content = (tmp_path / "LightTrackM.pth").read_bytes()
    published = module.PUBLISHED["lighttrack_mobile"]
    local = dataclasses.replace(published, url=server.url, blob=blob_name(tmp_path / "LightTrackM.pth"))
    monkeypatch.setitem(module.PUBLISHED, "lighttrack_mobile", local)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server.cut_after = [1_000_000]
    assert main(["download", "lighttrack_mobile", "--output", str(tmp_path / "engines")]) == 0
    assert (tmp_path / "engines/lighttrack_mobile/search.onnx").is_file()
