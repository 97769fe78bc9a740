"""etcd's users and roles as masters keep them: each identity writes its own keys and no others."""
