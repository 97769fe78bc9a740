"""The lab's image: one static busybox with its applets, the same bytes and the same id on every Engine."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import shutil
import subprocess
import tarfile

IMAGE = "unitfleet-lab:1"

_FILES = {
    "etc/passwd": b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": b"root:x:0:\n",
}


@functools.cache
def image_archive(tag: str = IMAGE, note: str = "") -> bytes:
    """Return the image as `docker load` takes it. Another `note` makes another image (file /note)."""
    layer = _layer(note)
    diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    return _tar({config_name: config, "layer.tar": layer, "manifest.json": manifest})


def image_id(note: str = "") -> str:
    """Return the id that every Engine gives the image of this note: the digest of its config."""
    with tarfile.open(fileobj=io.BytesIO(image_archive(IMAGE, note))) as archive:
        return "sha256:" + next(name for name in archive.getnames() if len(name) == 69).removesuffix(".json")


@functools.cache
def _layer(note: str) -> bytes:
    busybox = shutil.which("busybox")
    assert busybox is not None, "busybox-static is not installed"
    with open(busybox, "rb") as program:
        files = {**_FILES, "note": f"{note}\n".encode()}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as layer:
            for folder in ("bin", "etc", "tmp", "var", "run", "root", "data", "proc", "sys", "dev"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                layer.addfile(entry)
            _add(layer, "bin/busybox", program.read(), 0o755)
            for name, content in files.items():
                _add(layer, name, content, 0o644)
            for applet in _applets(busybox):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
                layer.addfile(link)
    return out.getvalue()


def _applets(busybox: str) -> list[str]:
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True, timeout=10)
    return sorted(set(listed.stdout.split()) - {"busybox"})


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            _add(archive, name, content, 0o644)
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
