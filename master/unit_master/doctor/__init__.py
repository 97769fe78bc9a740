"""What is wrong with a cluster, or will be: facts are gathered, pure functions tell what they mean."""
