#!/usr/bin/env python3
"""Fills one cache with `lowbit pull` and another with huggingface_hub, both from a small hub on this
machine, and compares them: same blobs, same snapshots, same refs, each readable by the other.

  pip install huggingface_hub==2.4.0
  tools/compat/hub_cache.py [build/cpu/lowbit]
"""

import hashlib
import http.server
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading

FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "README.md": b"# Model\n",
         "model.safetensors": bytes(range(256)) * 4000, "empty.json": b""}
LFS = {"model.safetensors"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def etag(name):
    data = FILES[name]
    if name in LFS:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/models/org/name"):
            siblings = [{"rfilename": name, "size": len(data), "blobId": etag(name),
                         **({"lfs": {"sha256": etag(name), "size": len(data), "pointerSize": 1}}
                            if name in LFS else {})} for name, data in FILES.items()]
            if "/tree/" in path:
                siblings = [{"type": "file", "path": s["rfilename"], "size": s["size"],
                             "oid": s["blobId"],
                             **({"lfs": {"oid": s["lfs"]["sha256"], "size": s["size"],
                                         "pointerSize": 1}} if "lfs" in s else {})} for s in siblings]
                return self.reply(json.dumps(siblings).encode(), Content_Type="application/json")
            body = json.dumps({"id": "org/name", "modelId": "org/name", "sha": COMMIT, "private": False,
                               "tags": [], "downloads": 0, "likes": 0, "siblings": siblings})
            return self.reply(body.encode(), Content_Type="application/json")
        name = path.rsplit("/", 1)[1]
        if "/resolve/" in path and name in FILES:
            data = FILES[name]
            return self.reply(data, ETag=f'"{etag(name)}"', X_Repo_Commit=COMMIT,
                              X_Linked_Etag=f'"{etag(name)}"', X_Linked_Size=str(len(data)))
        return self.reply(b"", 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET


def tree(cache):
    """What is in the repository's folder: links with their targets, files with their contents."""
    root = pathlib.Path(cache) / "models--org--name"
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main():
    lowbit = sys.argv[1] if len(sys.argv) > 1 else "build/cpu/lowbit"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    os.environ.update(HF_ENDPOINT=endpoint, HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1")
    os.environ.pop("HF_HUB_OFFLINE", None)
    import huggingface_hub

    with tempfile.TemporaryDirectory() as temporary:
        ours, theirs = f"{temporary}/ours", f"{temporary}/theirs"

        def pull(cache, **environment):
            return subprocess.run([lowbit, "pull", "org/name", "--include", "*"], check=True, text=True,
                                  capture_output=True,
                                  env={**os.environ, "HF_HUB_CACHE": cache, **environment}).stdout.strip()

        folder = pull(ours)
        their_folder = huggingface_hub.snapshot_download("org/name", cache_dir=theirs)
        ours_tree, theirs_tree = tree(ours), tree(theirs)
        relevant = lambda t: {k: v for k, v in t.items() if k.split("/")[0] in ("blobs", "snapshots", "refs")}
        assert relevant(ours_tree) == relevant(theirs_tree), (ours_tree, theirs_tree)
        print(f"same {len(relevant(ours_tree))} files and links")
        found = huggingface_hub.snapshot_download("org/name", cache_dir=ours, local_files_only=True)
        assert os.path.samefile(found, folder), (found, folder)
        info = huggingface_hub.scan_cache_dir(ours)
        assert not info.warnings and len(info.repos) == 1, info
        print("huggingface_hub reads what lowbit pulled")
        assert os.path.samefile(pull(theirs, HF_HUB_OFFLINE="1"), their_folder)
        print("lowbit reads what huggingface_hub pulled")
        before = {p: p.stat().st_mtime_ns for p in pathlib.Path(theirs, "models--org--name/blobs").iterdir()}
        pull(theirs)
        assert before == {p: p.stat().st_mtime_ns for p in before}, "fetched again"
        print("and fetches nothing again")


if __name__ == "__main__":
    main()
