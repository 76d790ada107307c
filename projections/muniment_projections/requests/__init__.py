"""Requests that carried an Idempotency-Key, so that repeats are recognised after a restart."""
