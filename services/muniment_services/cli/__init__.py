"""The `muniment` command: one module per sub-command."""
