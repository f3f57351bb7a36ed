"""The training loop around any model that speaks BasicSR's model protocol: processes, folders, logs, exit codes."""
