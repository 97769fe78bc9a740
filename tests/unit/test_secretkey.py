"""`Secret=` in unit files: what is taken, what is refused and in which words."""

from __future__ import annotations

import pytest

from unitfleet.accept import read
from unitfleet.errors import InvalidUnit
from unitfleet.spec import SecretSpec

CONTAINER = "[Container]\nImage=app:1\n"
SERVICE = "[Service]\nExecStart=/bin/sleep 1\n[X-Fleet]\n"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        pytest.param(
            CONTAINER + "Secret=db-password\n",
            (SecretSpec(name="db-password", target="/run/secrets/db-password"),),
            id="a file below /run/secrets that its owner alone reads",
        ),
        pytest.param(
            CONTAINER + "Secret=db,type=mount,target=/etc/db,uid=7,gid=8,mode=0440\nSecret=tls.key,target=key\n",
            (
                SecretSpec(name="db", target="/etc/db", uid=7, gid=8, mode=0o440),
                SecretSpec(name="tls.key", target="/run/secrets/key"),
            ),
            id="path, owner and mode as the unit says",
        ),
        pytest.param(CONTAINER + "Secret=a\nSecret=\n", (), id="an empty assignment drops what was before"),
        pytest.param(
            SERVICE + "Secret=db-%i,target=db\n",
            (SecretSpec(name="db-1", target="db"),),
            id="a file in the directory of a service, named for its instance",
        ),
    ],
)
def test_a_secret_is_read(text: str, secrets: tuple[SecretSpec, ...]) -> None:
    spec = read("a@1.service", text)
    assert spec.secrets == secrets
    assert spec.requirements.secrets == tuple(secret.name for secret in secrets)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CONTAINER + "Secret=x,type=env\n", "an environment is in `docker inspect`"),
        (SERVICE + "Secret=x,type=env\n", "type=env is refused"),
        (CONTAINER + "Secret=x,type=socket\n", "a secret is a file"),
        (CONTAINER + "Secret=../x\n", "no name of a secret"),
        (CONTAINER + "Secret=a..b\n", "no name of a secret"),
        (CONTAINER + "Secret=x,taget=y\n", "did you mean target?"),
        (CONTAINER + "Secret=x,uid=www\n", "uid=www is no number"),
        (CONTAINER + "Secret=x,mode=9\n", "write mode=0400"),
        (CONTAINER + "Secret=x,target=a/../b\n", "absolute path"),
        (CONTAINER + "Secret=x\nSecret=y,target=x\n", "two mounts or secrets at /run/secrets/x"),
        (CONTAINER + "User=www\nSecret=x\n", "add uid="),
        (CONTAINER + "[X-Fleet]\nSecret=x\n", "write it into [Container]"),
        (SERVICE + "Secret=x,target=/etc/x\n", "$CREDENTIALS_DIRECTORY"),
        (SERVICE + "Secret=x\n[Service]\nPrivateTmp=yes\n", "needs the process driver"),
        (CONTAINER + "".join(f"Secret=s{number}\n" for number in range(33)), "at most 32"),
    ],
)
def test_a_secret_that_can_not_be_handed_out_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidUnit) as refused:
        read("a.service", text)
    assert any(said in problem for problem in refused.value.problems), refused.value.problems


def test_a_service_with_a_secret_runs_by_the_process_driver_alone() -> None:
    assert read("a.service", SERVICE + "Secret=x\n").requirements.drivers == ("process",)
