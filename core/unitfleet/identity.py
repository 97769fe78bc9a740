"""The identity of a machine or a master on its disk: who to trust, who we are, and the key that shows it.

    DIR/ca.pem      the cluster's authority            DIR/key.pem   the key, made here; it never leaves the host
    DIR/cert.pem    the certificate of `key.pem`       DIR/ca.key    the authority's key: masters that sign
    DIR/joined.json what joining told (`joining`)

The directory is 0700, each file 0600 and written whole: a power cut leaves the old one or the new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unitfleet.certificates import Authority, Certificate, fits, issued_by, read
from unitfleet.errors import InvalidConfig
from unitfleet.joinapi import Role

CA, CA_KEY, CERTIFICATE, KEY = "ca.pem", "ca.key", "cert.pem", "key.pem"


@dataclass(frozen=True, slots=True)
class Identity:
    """A directory that holds an identity, and what its certificate said when it was read."""

    directory: Path
    certificate: Certificate

    @property
    def ca_file(self) -> Path:
        """The authority's certificate."""
        return self.directory / CA

    @property
    def cert_file(self) -> Path:
        """Our certificate."""
        return self.directory / CERTIFICATE

    @property
    def key_file(self) -> Path:
        """Our key."""
        return self.directory / KEY

    @property
    def signs(self) -> bool:
        """Whether the authority's key is here too."""
        return (self.directory / CA_KEY).exists()

    def authority(self) -> Authority:
        """Return the authority with its key; raises `InvalidConfig`."""
        ca = Authority(read_file(self.ca_file), read_secret(self.directory / CA_KEY))
        if not fits(ca.certificate, ca.key):
            raise InvalidConfig(f"cannot use {self.directory / CA_KEY}: it is not the key of {self.ca_file}")
        return ca


def is_there(directory: Path) -> bool:
    """Tell whether the directory holds an identity."""
    return (directory / CERTIFICATE).exists()


def load(directory: Path, role: Role) -> Identity:
    """Read an identity and look whether its parts fit; raises `InvalidConfig`. An expired one is read too."""
    ca, certificate = read_file(directory / CA), read_file(directory / CERTIFICATE)
    key = read_secret(directory / KEY)
    found = read(certificate)
    hint = "see docs/certificates.md; `unitctl cluster init` makes a cluster's first, joining another"
    if not fits(certificate, key):
        raise InvalidConfig(f"cannot use {directory}: {CERTIFICATE} is not of the key in {KEY}", hint=hint)
    if not issued_by(certificate, ca):
        raise InvalidConfig(f"cannot use {directory}: {CERTIFICATE} is of another authority than {CA}", hint=hint)
    if found.role != role:
        raise InvalidConfig(
            f"cannot use {directory}: the certificate is that of {found.role or 'nobody'} {found.name}, not of "
            f"{'an agent' if role is Role.AGENT else f'a {role}'}",
            hint=hint,
        )
    return Identity(directory, found)


def make_directory(directory: Path) -> None:
    """Make the directory, its owner's alone; raises `InvalidConfig`."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
    except OSError as error:
        raise InvalidConfig(f"cannot use {directory}: {_why(error)}", hint="name another directory") from error


def read_file(path: Path) -> bytes:
    """Return the content of a file; raises `InvalidConfig`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"cannot use {path}: {_why(error)}", hint="see docs/certificates.md") from error


def read_secret(path: Path) -> bytes:
    """Return the content of a key file; raises `InvalidConfig` when others can read it."""
    raw = read_file(path)
    mode = path.stat().st_mode
    if mode & 0o077:
        raise InvalidConfig(f"cannot use {path}: others can read it", hint=f"chmod 600 {path}")
    return raw


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
