"""Strict units (`Singleton=strict`): a copy runs only until a deadline that the store has proved, on this host.

`keeper` renews the fence and with it the deadlines, `register` hands them to the warden, `warden` is the process
that ends what runs past its deadline when the agent can't. See docs/strict.md.
"""
