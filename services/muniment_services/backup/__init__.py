"""Backups of log, artifacts and keys: made beside a running server, checked, restored.

The life of one backup is told in `create.py`; what lies in a place in `base.py`.
"""
