"""The keys of `[Container]` that few units use, read into the fields of a `ContainerSpec`."""

from __future__ import annotations

from functools import partial
from typing import Any

from unitfleet import quadlet_values as values
from unitfleet import quantities, timespan
from unitfleet.quadlet_keys import CONTAINER, UNENFORCED
from unitfleet.section import Section

_WITHOUT_NETWORKS = ("host", "none")


def read(section: Section) -> dict[str, Any]:
    """Return the fields; what goes with no other key is told of."""
    _check_user_namespace(section)
    _check_networks(section)
    return {
        "annotations": values.pairs(section, "Annotation"),
        "group_add": section.each("GroupAdd", values.group),
        "sysctls": section.each_word("Sysctl", values.sysctl),
        "userns_host": section.text("UserNS") == "host",
        "no_new_privileges": section.get("NoNewPrivileges", quantities.boolean, False),
        "apparmor": section.get("AppArmor", values.profile, ""),
        "seccomp_profile": section.get("SeccompProfile", values.seccomp, ""),
        "security_labels": values.security_labels(section),
        "masked": _flat(section.each_word("Mask", values.masked)),
        "unmasked": _flat(section.each_word("Unmask", values.unmasked)),
        "read_only_tmpfs": section.get("ReadOnlyTmpfs", quantities.boolean, None),
        "dns_options": section.each("DNSOption", values.word),
        "dns_search": section.each("DNSSearch", values.word),
        "exposed": section.each("ExposeHostPort", values.exposed),
        "ip": section.get("IP", values.ip, ""),
        "ip6": section.get("IP6", values.ip6, ""),
        "network_aliases": section.each("NetworkAlias", values.word),
        "pod": section.get("Pod", values.pod, ""),
        "start_with_pod": section.get("StartWithPod", quantities.boolean, True),
        "environment_host": section.get("EnvironmentHost", quantities.boolean, False),
        "http_proxy": section.get("HttpProxy", quantities.boolean, None),
        "timezone": section.get("Timezone", values.zone, ""),
        "auto_update": section.get("AutoUpdate", values.auto_update, ""),
        "pull_retries": section.get("Retry", partial(quantities.whole, low=0, high=1000), None),
        "pull_retry_delay_s": section.get("RetryDelay", timespan.parse_finite, None),
        "service_name": section.get("ServiceName", values.service_name, ""),
        **_reload(section),
    }


def _flat(found: tuple[list[str], ...]) -> tuple[str, ...]:
    return tuple(path for paths in found for path in paths)


def _reload(section: Section) -> dict[str, Any]:
    command, signal = section.last("ReloadCmd"), section.last("ReloadSignal")
    if command is not None and signal is not None:
        section.problems.error(
            max(command.line, signal.line), "ReloadCmd= and ReloadSignal= exclude each other", "leave out one"
        )
    words = () if command is None else tuple(values.dollars(word) for word in section.words(command))
    return {
        "reload_command": words,
        "reload_signal": section.get("ReloadSignal", quantities.signal_name, ""),
    }


def _check_user_namespace(section: Section) -> None:
    option = section.last("UserNS")
    if option is None:
        return
    if section.text("UserNS") != "host":
        key = CONTAINER["UserNS"]
        section.problems.warn(option.line, f"UserNS={option.value[:40]}: {key.ours}", key.hint)
    elif "UserNS=host" in UNENFORCED:
        section.problems.error(option.line, "UserNS=host is not supported by this version", "leave it out")


def _check_networks(section: Section) -> None:
    """Refuse what the Engine has for a network of one's own alone."""
    networks = [section.specifiers.resolve(option.value) for option in section.listed("Network")]
    for name in ("IP", "IP6", "NetworkAlias"):
        options = section.listed(name)
        if not options:
            continue
        if not networks or networks[0] in (*_WITHOUT_NETWORKS, "bridge"):
            section.problems.error(
                options[-1].line, f"{name}= needs a network of its own", "name one by Network=, not host or none"
            )
        elif name != "NetworkAlias" and len(networks) > 1:
            section.problems.error(
                options[-1].line, f"{name}= with {len(networks)} networks", "it is an address in one: leave one"
            )
