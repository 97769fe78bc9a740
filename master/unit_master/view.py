"""The cluster as one master sees it: every record of the store, indexed, kept by a watch.

Only `apply_listing` and `apply_batch` change it; the decisions of `scheduler` and `reconcile` read it. Records
that can't be read are kept apart in `bad`: they hinder nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from unitfleet import codec, keys, names
from unitfleet.accept import read_kept
from unitfleet.errors import BadRecord, InvalidName, InvalidUnit
from unitfleet.model import (
    Brake,
    Cluster,
    Happening,
    IdentityRecord,
    Images,
    JoinRecord,
    Leader,
    MachineSpec,
    MasterRecord,
    Pending,
    Pin,
    Placement,
    Presence,
    Protection,
    Record,
    Resources,
    RosterEntry,
    Sealed,
    Secret,
    Stay,
    Token,
    TokenName,
    Unit,
    UnitState,
    WarmImage,
    WarmSet,
)
from unitfleet.spec import UnitSpec
from unitfleet.store import Batch, EventKind, KeyValue, Listing

R = TypeVar("R", bound=Record)


_MOST_EPOCH = 2**53
"""Nobody counts that far: a greater number was written by hand."""


class Entry(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A record with the revision it was last written at, and the one that created its key."""

    value: R
    revision: int
    created: int


_NAMED: dict[str, tuple[str, type[Record]]] = {
    "units": ("units", Unit),
    "pins": ("pins", Pin),
    "pending": ("pending", Pending),
    "machines": ("presence", Presence),
    "machine-spec": ("machine_specs", MachineSpec),
    "roster": ("roster", RosterEntry),
    "resources": ("resources", Resources),
    "masters": ("masters", MasterRecord),
    "warm-set": ("warm_sets", WarmSet),
    "images": ("images", Images),
    "secrets": ("secrets", Secret),
    "tokens": ("tokens", Token),
    "token-names": ("token_names", TokenName),
    "join": ("join_tokens", JoinRecord),
}
"""Kinds of keys that carry one name: the attribute that holds them, and their record."""

_NAME_FIELDS = {
    "units": "name",
    "pins": "spec",
    "pending": "unit",
    "masters": "name",
    "token-names": "name",
    "secrets": "name",
}
"""The field that says the key's name once more, where it is not `id`."""

_SINGLE: dict[str, type[Record]] = {
    "cluster": Cluster,
    "leader": Leader,
    "brake": Brake,
    "protection": Protection,
}


@dataclass(slots=True)
class ClusterView:
    """Everything at `revision`. Placements and states are indexed unit → machine; machines by id."""

    revision: int = 0
    epoch: int = 0  # what the counter says
    highest_epoch: int = 0  # that any placement, state or stay was seen with
    cluster: Entry[Cluster] | None = None
    leader: Entry[Leader] | None = None
    brake: Entry[Brake] | None = None
    protection: Entry[Protection] | None = None
    units: dict[str, Entry[Unit]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # by digest
    pins: dict[str, Entry[Pin]] = field(default_factory=dict)
    pending: dict[str, Entry[Pending]] = field(default_factory=dict)
    placements: dict[str, dict[str, Entry[Placement]]] = field(default_factory=dict)
    states: dict[str, dict[str, Entry[UnitState]]] = field(default_factory=dict)
    presence: dict[str, Entry[Presence]] = field(default_factory=dict)
    machine_specs: dict[str, Entry[MachineSpec]] = field(default_factory=dict)
    roster: dict[str, Entry[RosterEntry]] = field(default_factory=dict)
    resources: dict[str, Entry[Resources]] = field(default_factory=dict)
    masters: dict[str, Entry[MasterRecord]] = field(default_factory=dict)  # by name
    warm: dict[str, Entry[WarmImage]] = field(default_factory=dict)  # by the digest of the reference
    warm_sets: dict[str, Entry[WarmSet]] = field(default_factory=dict)
    images: dict[str, Entry[Images]] = field(default_factory=dict)
    tokens: dict[str, Entry[Token]] = field(default_factory=dict)  # by id
    token_names: dict[str, Entry[TokenName]] = field(default_factory=dict)
    join_tokens: dict[str, Entry[JoinRecord]] = field(default_factory=dict)
    identities: dict[str, dict[str, Entry[IdentityRecord]]] = field(default_factory=dict)  # role → name
    secrets: dict[str, Entry[Secret]] = field(default_factory=dict)
    sealed: dict[str, dict[str, Entry[Sealed]]] = field(default_factory=dict)  # machine → secret
    fences: dict[str, int] = field(default_factory=dict)  # machine → mod revision of its fence key
    stays: dict[str, dict[int, Entry[Stay]]] = field(default_factory=dict)  # unit → epoch
    events: dict[str, Entry[Happening]] = field(default_factory=dict)  # by key
    bad: dict[str, str] = field(default_factory=dict)  # key → why it can't be read
    on_machine: dict[str, set[str]] = field(default_factory=dict)  # machine → units with a placement there
    revisions: dict[str, int] = field(default_factory=dict)  # key → mod revision, of every key there is
    read: Callable[[str, str], UnitSpec] = read_kept  # reads a unit text under a name
    _specs: dict[tuple[str, str], UnitSpec | str] = field(default_factory=dict)

    @property
    def epoch_revision(self) -> int:
        """The revision at which the counter was last written, readable or not; 0 when there is none."""
        return self.revisions.get(keys.EPOCH, 0)

    @property
    def is_protected(self) -> bool:
        """Tell whether etcd is to let each identity write its own keys alone."""
        return self.protection is not None and self.protection.value.on

    def is_denied(self, role: str, name: str) -> bool:
        """Tell whether this identity was shut out."""
        known = self.identities.get(role, {}).get(name)
        return known is not None and known.value.denied

    def apply_listing(self, listing: Listing) -> set[str]:
        """Become what `listing` says and nothing else; return the keys that changed."""
        listed = {item.key: item for item in listing.items}
        changed = {key for key, item in listed.items() if self.revisions.get(key) != item.mod_revision}
        missing = self.revisions.keys() - listed.keys()
        for key in missing:
            self._delete(key)
        for key in changed:
            self._put(listed[key])
        self.revision = listing.revision
        return changed | missing

    def apply_batch(self, batch: Batch) -> set[str]:
        """Take in what a watch saw; return the keys that changed. What is known already is skipped."""
        changed = set()
        for event in batch.events:
            if event.kv.mod_revision <= self.revision:
                continue
            changed.add(event.kv.key)
            if event.kind is EventKind.PUT:
                self._put(event.kv)
            else:
                self._delete(event.kv.key)
        self.revision = max(self.revision, batch.revision)
        return changed

    def spec(self, name: str, digest: str) -> UnitSpec | None:
        """Return the unit text `digest` read under `name`, or None when it is missing or unreadable."""
        known = self._specs.get((name, digest))
        if known is None:
            text = self.texts.get(digest)
            if text is None:
                return None
            try:
                known = self.read(name, text)
            except (InvalidUnit, InvalidName) as error:
                known = str(error)
            self._specs[name, digest] = known
        return known if isinstance(known, UnitSpec) else None

    def unreadable(self, name: str, digest: str) -> str:
        """Say why `spec` gave None."""
        known = self._specs.get((name, digest))
        return known if isinstance(known, str) else "its text is not in the store"

    def placements_of(self, unit: str) -> dict[str, Entry[Placement]]:
        """Return the unit's placements by machine."""
        return self.placements.get(unit, {})

    def states_of(self, unit: str) -> dict[str, Entry[UnitState]]:
        """Return what agents report of the unit, by machine."""
        return self.states.get(unit, {})

    def metadata(self, machine: str) -> dict[str, str]:
        """Return a machine's metadata: its own, from its presence or last known, overlaid by the operator's."""
        present = self.presence.get(machine)
        known = self.roster.get(machine)
        own = present.value.metadata if present else known.value.metadata if known else {}
        ordered = self.machine_specs.get(machine)
        merged = {**own, **(ordered.value.metadata if ordered else {})}
        return {key: value for key, value in merged.items() if value != ""}

    def machine_name(self, machine: str) -> str:
        """Return a machine's name, or the beginning of its id when none is known."""
        present = self.presence.get(machine)
        known = self.roster.get(machine)
        return (present.value.name if present else known.value.name if known else "") or machine[:8]

    def find_machines(self, wanted: str) -> list[str]:
        """Return the ids that a name, an id or a unique prefix of either may mean; an exact match alone."""
        ids = self.roster.keys() | self.presence.keys()
        exact = [m for m in ids if wanted in (m, self.machine_name(m))]
        return sorted(exact or [m for m in ids if m.startswith(wanted) or self.machine_name(m).startswith(wanted)])

    def _put(self, kv: KeyValue) -> None:
        self.revisions[kv.key] = kv.mod_revision
        self.bad.pop(kv.key, None)
        try:
            self._put_record(kv)
        except (BadRecord, InvalidName, ValueError) as error:
            if kv.key != keys.CLUSTER:  # a cluster keeps its id: the leader writes it anew
                self._forget(kv.key)
            self.bad[kv.key] = str(error)

    def _delete(self, key: str) -> None:
        self.revisions.pop(key, None)
        self.bad.pop(key, None)
        self._forget(key)

    def _put_record(self, kv: KeyValue) -> None:
        def entry(record: type[R]) -> Entry[R]:
            return Entry(codec.decode(kv.value, record, kv.key), kv.mod_revision, kv.create_revision)

        match keys.split(kv.key):
            case "placements", machine, unit:
                placed = entry(Placement)
                _verify(kv.key, (machine, unit), (placed.value.machine, placed.value.unit))
                self._note_epoch(placed.value.epoch)
                self.placements.setdefault(unit, {})[machine] = placed
                self.on_machine.setdefault(machine, set()).add(unit)
            case "states", machine, unit:
                state = entry(UnitState)
                _verify(kv.key, (machine, unit), (state.value.machine, state.value.unit))
                self._note_epoch(state.value.epoch)
                self.states.setdefault(unit, {})[machine] = state
            case "sealed", machine, name:
                sealed = entry(Sealed)
                _verify(kv.key, (machine, name), (sealed.value.machine, sealed.value.name))
                self.sealed.setdefault(machine, {})[name] = sealed
            case "warm", digest:
                warm = entry(WarmImage)
                _verify(kv.key, (digest,), (hashlib.sha256(warm.value.image.encode()).hexdigest(),))
                self.warm[digest] = warm
            case "identities", role, who:
                known = entry(IdentityRecord)
                _verify(kv.key, (role, who), (known.value.role, known.value.name))
                self.identities.setdefault(role, {})[who] = known
            case "specs", digest:
                _verify(kv.key, (digest,), (hashlib.sha256(kv.value).hexdigest(),))
                self.texts[digest] = kv.value.decode()
            case "fence", machine:
                self.fences[machine] = kv.mod_revision
            case "history", unit, epoch if _is_number(epoch):
                stay = entry(Stay)
                self._note_epoch(stay.value.epoch)
                self.stays.setdefault(unit, {})[int(epoch)] = stay
            case "events", _, _:
                self.events[kv.key] = entry(Happening)
            case ("epoch",):
                if not (kv.value.isdigit() and len(kv.value) < 17 and int(kv.value) < _MOST_EPOCH):
                    told = kv.value[:40].decode(errors="replace")
                    raise BadRecord(f"cannot read {kv.key}: {told!r} is no epoch")
                self.epoch = int(kv.value)
            case (kind,) if kind in _SINGLE:
                setattr(self, kind, entry(_SINGLE[kind]))
            case kind, name if kind in _NAMED:
                attribute, record = _NAMED[kind]
                named = entry(record)
                _verify(kv.key, (name,), (getattr(named.value, _NAME_FIELDS.get(kind, "id")),))
                if kind == "units":
                    names.validate(name)
                self._table(attribute)[name] = named
            case _:
                raise BadRecord(f"cannot read {kv.key}: no such kind of key")

    def _forget(self, key: str) -> None:
        match keys.split(key):
            case "placements", machine, unit:
                _drop(self.placements, unit, machine)
                units = self.on_machine.get(machine, set())
                units.discard(unit)
                if not units:
                    self.on_machine.pop(machine, None)
            case "states", machine, unit:
                _drop(self.states, unit, machine)
            case "sealed", machine, name:
                _drop(self.sealed, machine, name)
            case "specs", digest:
                self.texts.pop(digest, None)
                self._specs = {known: spec for known, spec in self._specs.items() if known[1] != digest}
            case "warm", digest:
                self.warm.pop(digest, None)
            case "identities", role, who:
                _drop(self.identities, role, who)
            case "fence", machine:
                self.fences.pop(machine, None)
            case "history", unit, epoch if _is_number(epoch):
                _drop(self.stays, unit, int(epoch))
            case "events", _, _:
                self.events.pop(key, None)
            case ("epoch",):
                self.epoch = 0
            case (kind,) if kind in _SINGLE:
                setattr(self, kind, None)
            case kind, name if kind in _NAMED:
                self._table(_NAMED[kind][0]).pop(name, None)

    def _note_epoch(self, epoch: int) -> None:
        if epoch < _MOST_EPOCH:
            self.highest_epoch = max(self.highest_epoch, epoch)

    def _table(self, attribute: str) -> dict[str, Entry[Any]]:
        table: dict[str, Entry[Any]] = getattr(self, attribute)
        return table


def _is_number(text: str) -> bool:
    """Whether it is digits as `keys.stay` writes them."""
    return text.isascii() and text.isdigit() and len(text) < 17 and text == f"{int(text):012d}"


def _verify(key: str, named: tuple[str, ...], told: tuple[str, ...]) -> None:
    """Raise `BadRecord` for a record that speaks of another thing than its key."""
    if named != told:
        raise BadRecord(f"cannot read {key}: its content is that of {'/'.join(told)[:200]}")


K = TypeVar("K")
V = TypeVar("V")


def _drop(table: dict[str, dict[K, V]], outer: str, inner: K) -> None:
    held = table.get(outer)
    if held is not None:
        held.pop(inner, None)
        if not held:
            del table[outer]
