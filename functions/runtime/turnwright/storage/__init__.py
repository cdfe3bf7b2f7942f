"""AWS as the runtime uses it: the table, the bucket, clients and the environment. Knows nothing of a turn."""
