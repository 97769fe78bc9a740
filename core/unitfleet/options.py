"""The vocabulary: which sections and keys we take, which belong to a later version, which are slips."""

from __future__ import annotations

from collections.abc import Iterable

from unitfleet import checks, logkeys, quadlet_keys, xfleet
from unitfleet.limits import KEYS as RESOURCE_KEYS
from unitfleet.problems import Problems, nearest
from unitfleet.quadlet_keys import Handling
from unitfleet.service import LIMIT_KEYS
from unitfleet.systemd_keys import KEYS
from unitfleet.unitfile import XFLEET, Option

CONTAINER = "Container"

XFLEET_OURS = frozenset(
    "CPU Memory Disk Egress Ingress EgressLimit IngressLimit Burst Spread Prefer Avoid Priority OnMachineLoss "
    "Warm Secret Singleton".split()
)
XFLEET_KEYS = xfleet.KEYS | XFLEET_OURS | checks.KEYS | logkeys.KEYS
XFLEET_LATER = frozenset("Isolation".split())

CONTAINER_KEYS = frozenset(quadlet_keys.CONTAINER)
QUADLET_SECTIONS = frozenset("Pod Kube Network Volume Image Build Artifact Quadlet".split())

_RUNNING = frozenset(
    (
        "Type RemainAfterExit Restart RestartSec RestartPreventExitStatus RestartForceExitStatus "
        "SuccessExitStatus TimeoutSec TimeoutStartSec TimeoutStopSec "
        "StartLimitInterval StartLimitIntervalSec StartLimitBurst"
    ).split()
)

# What the process driver carries out of [Service].
PROCESS_SERVICE = _RUNNING | frozenset(
    (
        "ExecStartPre ExecStart ExecStartPost ExecStop ExecStopPost ExecReload Environment EnvironmentFile "
        "WorkingDirectory User Group KillMode KillSignal SendSIGKILL NotifyAccess"
    ).split()
)
PROCESS_SERVICE |= frozenset(LIMIT_KEYS) | RESOURCE_KEYS

# What the docker driver carries out of [Service] beside [Container].
CONTAINER_SERVICE = _RUNNING | RESOURCE_KEYS | {"LimitNOFILE"}

# What may be left out with nothing lost: how systemd labels output, counts, or finds the main process.
HARMLESS_SERVICE = frozenset(
    (
        "SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix GuessMainPID PIDFile PermissionsStartOnly "
        "CPUAccounting MemoryAccounting TasksAccounting IOAccounting BlockIOAccounting IPAccounting "
        "TimeoutAbortSec Delegate"
    ).split()
)
OUTPUTS = ("StandardOutput", "StandardError")
HARMLESS_OUTPUTS = frozenset(
    ("inherit null journal syslog kmsg journal+console syslog+console kmsg+console").split()
)

# [Unit] keys that order or bind units of one host; only systemd carries them out.
DEPENDENCIES = frozenset(
    (
        "Requires Requisite Wants BindsTo BindTo Upholds Conflicts Before After PartOf PropagatesReloadTo "
        "ReloadPropagatedFrom PropagatesStopTo StopPropagatedFrom JoinsNamespaceOf RequiresOverridable "
        "RequisiteOverridable"
    ).split()
)
# Units that a host has before any driver runs on it.
ALWAYS_THERE = frozenset("docker.service docker.socket containerd.service dbus.service etcd.service".split())
# [Unit] keys that mean nothing without systemd's jobs, or are met already.
HARMLESS_UNIT = frozenset(
    (
        "Description Documentation SourcePath DefaultDependencies AllowIsolate IgnoreOnIsolate RefuseManualStart "
        "RefuseManualStop StartLimitInterval StartLimitIntervalSec StartLimitBurst StopWhenUnneeded "
        "CollectMode OnFailureJobMode OnSuccessJobMode RequiresMountsFor"
    ).split()
)


def check_keys(options: Iterable[Option], suffix: str, problems: Problems) -> None:
    """Say of each key whether it is taken, of a later version, or a slip.

    Slips in `[X-Fleet]` and `[Container]` are errors: fleet ran a unit with a misspelt requirement anywhere.
    In systemd's own sections they are warnings, as systemd itself gives.
    """
    for option in options:
        name, line = option.name, option.line
        match option.section:
            case "X-Fleet" if name in XFLEET_LATER:
                problems.error(line, f"{name}= is not supported by this version yet", "leave it out")
            case "X-Fleet" if name not in XFLEET_KEYS:
                problems.error(line, f"unknown key {name!r} in [X-Fleet]", _xfleet_hint(name))
            case "Container":
                _check_container_key(option, problems)
            case section if section in _sections(suffix) and name not in KEYS[section]:
                if not name.startswith("X-"):
                    problems.warn(line, f"unknown key {name!r} in [{section}]", nearest(name, KEYS[section]))


def _check_container_key(option: Option, problems: Problems) -> None:
    name, line = option.name, option.line
    key = quadlet_keys.CONTAINER.get(name)
    if key is None:
        if not name.startswith("X-"):
            problems.error(line, f"unknown key {name!r} in [Container]", nearest(name, CONTAINER_KEYS))
    elif name in quadlet_keys.UNENFORCED:
        problems.error(line, f"{name}= is not supported by this version", key.hint or "leave it out")
    elif key.handling is Handling.IMPOSSIBLE:
        problems.error(line, f"{name}= is not possible here: {key.ours}", key.hint)
    elif key.handling is Handling.LIMITED and option.value and name not in ("PodmanArgs", "UserNS"):
        problems.warn(line, f"{name}=: {key.ours}", key.hint)  # of those two some values have an effect


def check_sections(sections: Iterable[tuple[str, int]], suffix: str, problems: Problems) -> None:
    """Say of each section header whether anything reads it."""
    known = {*_sections(suffix), XFLEET, CONTAINER}
    for name, line in dict(reversed(list(sections))).items():
        if name in known:
            continue
        if name in QUADLET_SECTIONS:
            problems.error(line, f"[{name}] is not supported by this version", "leave the section out")
        elif name.lower() in ("x-fleet", "xfleet", "x_fleet"):
            problems.warn(line, f"[{name}] is not [X-Fleet]: what it says has no effect", "write [X-Fleet]")
        elif not name.startswith("X-"):
            hint = nearest(name, known) or "other programs' sections begin with X-"
            problems.warn(line, f"[{name}] is ignored: no section of a {suffix} unit", hint)


def _sections(suffix: str) -> tuple[str, ...]:
    own = suffix.capitalize()
    return ("Unit", "Install", own) if own in KEYS else ("Unit", "Install")


def _xfleet_hint(name: str) -> str:
    return nearest(name, XFLEET_KEYS) or "the keys are " + ", ".join(
        sorted(key for key in XFLEET_KEYS if not key.startswith("X-"))
    )
