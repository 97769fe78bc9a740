"""The agent: runs on every host, carries out placements and reports what it sees."""
