"""Instances by the EC2 API, with our user-data. Region and credentials are found as boto3 finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unitctl.bootstrap.libraries import load
from unitctl.failures import Denied, Failure, Unreachable
from unitfleet.problems import BadValue

_DENIED = ("UnauthorizedOperation", "AuthFailure", "AccessDenied", "InvalidClientTokenId", "SignatureDoesNotMatch")


@dataclass(frozen=True, slots=True)
class Launch:
    """What is launched."""

    count: int
    type: str
    image: str
    user_data: str
    subnet: str = ""
    security_groups: Sequence[str] = ()
    key: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """Return it as EC2's RunInstances has it: all of them or none."""
        said = {"SubnetId": self.subnet, "SecurityGroupIds": list(self.security_groups), "KeyName": self.key}
        tags = [{"Key": key, "Value": value} for key, value in self.tags.items()]
        return {
            "ImageId": self.image,
            "InstanceType": self.type,
            "MinCount": self.count,
            "MaxCount": self.count,
            "UserData": self.user_data,
            # Tags become metadata (--ec2-metadata); a token is asked for, so that a stray request learns nothing.
            "MetadataOptions": {"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
            **{name: value for name, value in said.items() if value},
            **({"TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]} if tags else {}),
        }

    def told(self, region: str) -> str:
        """Say it in a line."""
        what = "instance" if self.count == 1 else "instances"
        parts = [f"{self.count} {what} {self.type} of {self.image} in {region or 'the default region'}"]
        parts += [f"subnet {self.subnet}"] if self.subnet else []
        parts += [f"security groups {', '.join(self.security_groups)}"] if self.security_groups else []
        parts += [f"key {self.key}"] if self.key else []
        parts += ["tags " + " ".join(f"{key}={value}" for key, value in self.tags.items())] if self.tags else []
        return ", ".join([*parts, f"{len(self.user_data.encode()):,} bytes of user-data"])


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance that was launched."""

    id: str
    private_ip: str
    state: str


def tag(text: str) -> tuple[str, str]:
    """Read `key=value`; raises `BadValue`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or key.lower().startswith("aws:"):
        raise BadValue(f"{text!r} is no tag: write key=value, and no key of aws:")
    return key.strip(), value


class Ec2:
    """The API, in one region."""

    def __init__(self, region: str) -> None:
        boto3 = load("boto3", "ec2", "launch instances")
        self._errors = load("botocore.exceptions", "ec2", "launch instances")
        self._client = self._asked(lambda: boto3.session.Session().client("ec2", region_name=region or None))
        self.region: str = self._client.meta.region_name

    def launch(self, wanted: Launch) -> tuple[Instance, ...]:
        """Launch instances and return them; raises `Failure`."""
        answer = self._asked(lambda: self._client.run_instances(**wanted.request()))
        return tuple(
            Instance(each["InstanceId"], each.get("PrivateIpAddress", ""), each["State"]["Name"])
            for each in answer["Instances"]
        )

    def rehearse(self, wanted: Launch) -> None:
        """Ask whether it would be allowed, and launch nothing; raises `Failure`."""
        try:
            self._client.run_instances(**wanted.request(), DryRun=True)
        except self._errors.ClientError as error:
            if error.response["Error"]["Code"] != "DryRunOperation":
                raise self._failure(error) from error
        except self._errors.BotoCoreError as error:
            raise self._failure(error) from error

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except (self._errors.BotoCoreError, self._errors.ClientError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Any) -> Failure:
        """Make one clear line of what boto3 says."""
        if isinstance(error, self._errors.ClientError):
            code, message = error.response["Error"]["Code"], error.response["Error"]["Message"]
            text = f"cannot launch: {message.strip().rstrip('.')} ({code})"
            return Denied(text) if code.startswith(_DENIED) else Failure(text)
        text = f"cannot launch: {str(error).strip().rstrip('.')}"
        if isinstance(error, self._errors.NoRegionError):
            return Failure(text, hint="--region eu-west-1, or AWS_REGION")
        if isinstance(error, self._errors.NoCredentialsError | self._errors.PartialCredentialsError):
            return Denied(
                text, hint="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or an instance's role"
            )
        if isinstance(error, self._errors.HTTPClientError | self._errors.ConnectionError):
            return Unreachable(text)
        return Failure(text)
