"""The .rpm and the wheel. No system with RPM is made here: the .rpm is looked into, and what it holds runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.packages import OLDER, TOP, Packages

pytestmark = pytest.mark.host


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(list(map(str, argv)), cwd=cwd, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rpm(built: Packages) -> Path:
    if shutil.which("rpm") is None:
        pytest.skip("needs rpm, which is not installed")
    return built.rpm


def test_the_rpm_is_whole_and_holds_the_files_that_the_deb_holds(rpm: Path, built: Packages) -> None:
    run("rpm", "-K", "--nosignature", rpm)
    in_rpm = set(run("rpm", "-qp", "--list", rpm).splitlines())
    in_deb = {
        line.split(None, 5)[5].split(" -> ")[0].removeprefix(".").rstrip("/")
        for line in run("dpkg-deb", "--contents", built.deb).splitlines()
        if not line.startswith("d")
    }
    assert in_deb - in_rpm == set()
    assert {"/usr/bin/unitctl", "/usr/lib/systemd/system/unit-agent.service"} <= in_rpm


def test_the_rpm_needs_this_very_python_and_keeps_settings(rpm: Path) -> None:
    needed = run("rpm", "-qp", "--requires", rpm)
    assert f"python(abi) = {sys.version_info[0]}.{sys.version_info[1]}" in needed
    assert run("rpm", "-qp", "--configfiles", rpm).split() == [
        "/etc/unitfleet/agent.toml",
        "/etc/unitfleet/master.toml",
    ]
    # 17: a configuration file (1) that an upgrade does not replace (16)
    flags = run("rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS}\\n]", rpm)
    assert "/etc/unitfleet/agent.toml 17" in flags.splitlines()


def test_the_rpm_brings_the_same_scripts_as_the_deb(rpm: Path) -> None:
    said = run("rpm", "-qp", "--scripts", rpm)
    for name in ("postinstall", "preremove", "postremove"):
        script = (TOP / f"packaging/scripts/{name}.sh").read_text().strip()
        assert script in said, name


def test_what_the_rpm_holds_runs(rpm: Path, tmp_path: Path) -> None:
    run("sh", "-c", 'rpm2cpio "$1" | cpio --quiet -idm', "sh", rpm, cwd=tmp_path)
    assert run(tmp_path / "opt/unitfleet/bin/unitctl", "version").strip() == f"unitctl {OLDER}"
    for daemon in ("unit-agent", "unit-master"):
        assert run(tmp_path / f"opt/unitfleet/bin/{daemon}", "--check", "--etcd", "127.0.0.1:2379")


def test_the_wheel_brings_unitctl_to_a_fresh_environment(built: Packages, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "--disable-pip-version-check", "install", "--quiet", built.wheel)
    assert run(tmp_path / "venv/bin/unitctl", "version").strip() == f"unitctl {OLDER}"
