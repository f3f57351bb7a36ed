"""Services that every room may use: atomic files, downloads, tables as text, machine facts, memory, process groups."""
