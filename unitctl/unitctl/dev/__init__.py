"""`unitctl dev`: a whole cluster on this host, in one folder: etcd, two masters, three agents."""
