"""The store on a real etcd (v3 API, 3.4 and later), over gRPC with a client of our own (docs/decisions)."""
