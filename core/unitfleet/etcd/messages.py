"""etcd's messages and methods, from the compiled `rpc.proto`.

The descriptors live in a pool of their own: no generated module whose version must match protobuf's, no clash
with another etcd client in the process. protobuf makes the classes at run time, so they are typed `Any`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from unitfleet.store import Compare, Delete, KeyValue, Op, Put, Target

PACKAGE = "unitfleet.etcd"


def _load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    compiled = resources.files(PACKAGE).joinpath("rpc.pb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(compiled).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


AuthDisableRequest = _message("AuthDisableRequest")
AuthEnableRequest = _message("AuthEnableRequest")
AuthenticateRequest = _message("AuthenticateRequest")
CompactionRequest = _message("CompactionRequest")
CompareRequest = _message("Compare")
DeleteRangeRequest = _message("DeleteRangeRequest")
LeaseGrantRequest = _message("LeaseGrantRequest")
LeaseKeepAliveRequest = _message("LeaseKeepAliveRequest")
LeaseRevokeRequest = _message("LeaseRevokeRequest")
Permission = _message("Permission")
PutRequest = _message("PutRequest")
RangeRequest = _message("RangeRequest")
RequestOp = _message("RequestOp")
RoleAddRequest = _message("AuthRoleAddRequest")
RoleDeleteRequest = _message("AuthRoleDeleteRequest")
RoleGetRequest = _message("AuthRoleGetRequest")
RoleGrantRequest = _message("AuthRoleGrantPermissionRequest")
RoleListRequest = _message("AuthRoleListRequest")
RoleRevokeRequest = _message("AuthRoleRevokePermissionRequest")
StatusRequest = _message("StatusRequest")
TxnRequest = _message("TxnRequest")
UserAddOptions = _message("UserAddOptions")
UserAddRequest = _message("AuthUserAddRequest")
UserDeleteRequest = _message("AuthUserDeleteRequest")
UserGetRequest = _message("AuthUserGetRequest")
UserGrantRequest = _message("AuthUserGrantRoleRequest")
UserListRequest = _message("AuthUserListRequest")
UserRevokeRequest = _message("AuthUserRevokeRoleRequest")
WatchCancelRequest = _message("WatchCancelRequest")
WatchCreateRequest = _message("WatchCreateRequest")
WatchRequest = _message("WatchRequest")


@dataclass(frozen=True, slots=True)
class Method:
    """One method of etcd: its path on the wire, and the class of its answers."""

    path: str
    answer: Any


RANGE = Method("/etcdserverpb.KV/Range", _message("RangeResponse"))
PUT = Method("/etcdserverpb.KV/Put", _message("PutResponse"))
DELETE_RANGE = Method("/etcdserverpb.KV/DeleteRange", _message("DeleteRangeResponse"))
TXN = Method("/etcdserverpb.KV/Txn", _message("TxnResponse"))
COMPACT = Method("/etcdserverpb.KV/Compact", _message("CompactionResponse"))
GRANT = Method("/etcdserverpb.Lease/LeaseGrant", _message("LeaseGrantResponse"))
REVOKE = Method("/etcdserverpb.Lease/LeaseRevoke", _message("LeaseRevokeResponse"))
KEEPALIVE = Method("/etcdserverpb.Lease/LeaseKeepAlive", _message("LeaseKeepAliveResponse"))
STATUS = Method("/etcdserverpb.Maintenance/Status", _message("StatusResponse"))
WATCH = Method("/etcdserverpb.Watch/Watch", _message("WatchResponse"))

AUTH_ENABLE = Method("/etcdserverpb.Auth/AuthEnable", _message("AuthEnableResponse"))
AUTH_DISABLE = Method("/etcdserverpb.Auth/AuthDisable", _message("AuthDisableResponse"))
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", _message("AuthenticateResponse"))
USER_ADD = Method("/etcdserverpb.Auth/UserAdd", _message("AuthUserAddResponse"))
USER_GET = Method("/etcdserverpb.Auth/UserGet", _message("AuthUserGetResponse"))
USER_LIST = Method("/etcdserverpb.Auth/UserList", _message("AuthUserListResponse"))
USER_DELETE = Method("/etcdserverpb.Auth/UserDelete", _message("AuthUserDeleteResponse"))
USER_GRANT = Method("/etcdserverpb.Auth/UserGrantRole", _message("AuthUserGrantRoleResponse"))
USER_REVOKE = Method("/etcdserverpb.Auth/UserRevokeRole", _message("AuthUserRevokeRoleResponse"))
ROLE_ADD = Method("/etcdserverpb.Auth/RoleAdd", _message("AuthRoleAddResponse"))
ROLE_GET = Method("/etcdserverpb.Auth/RoleGet", _message("AuthRoleGetResponse"))
ROLE_LIST = Method("/etcdserverpb.Auth/RoleList", _message("AuthRoleListResponse"))
ROLE_DELETE = Method("/etcdserverpb.Auth/RoleDelete", _message("AuthRoleDeleteResponse"))
ROLE_GRANT = Method("/etcdserverpb.Auth/RoleGrantPermission", _message("AuthRoleGrantPermissionResponse"))
ROLE_REVOKE = Method("/etcdserverpb.Auth/RoleRevokePermission", _message("AuthRoleRevokePermissionResponse"))

_TARGETS = {
    Target.CREATE_REVISION: (1, "create_revision"),
    Target.MOD_REVISION: (2, "mod_revision"),
    Target.VALUE: (3, "value"),
}


def range_end(prefix: str) -> bytes:
    """Return the first key after all that begin with `prefix`; keys are ASCII, so the last byte can go up by one.

    The empty prefix is every key: etcd's word for that is a zero byte.
    """
    if not prefix:
        return b"\0"
    return prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])


def first_key(prefix: str) -> bytes:
    """Return the first key that may begin with `prefix`; etcd takes a zero byte for the very first."""
    return prefix.encode() or b"\0"


def from_compare(compare: Compare) -> Any:
    """Write a comparison as etcd reads it."""
    target, field = _TARGETS[compare.target]
    return CompareRequest(key=compare.key.encode(), target=target, **{field: compare.expected})


def from_operation(op: Op) -> Any:
    """Write an operation as etcd reads it."""
    match op:
        case Put(key, value, lease):
            return RequestOp(request_put=PutRequest(key=key.encode(), value=value, lease=lease))
        case Delete(key, prefix=False):
            return RequestOp(request_delete_range=DeleteRangeRequest(key=key.encode()))
        case Delete(key, prefix=True):
            under = DeleteRangeRequest(key=first_key(key), range_end=range_end(key))
            return RequestOp(request_delete_range=under)


def to_key_value(kv: Any) -> KeyValue:
    """Read a key as etcd wrote it; bytes that are no ASCII, which only others write, are escaped."""
    key = kv.key.decode("ascii", "backslashreplace")
    return KeyValue(key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)
