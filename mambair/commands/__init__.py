"""What the installed command ``mambair`` can do, a module each; ``mambair/cli.py`` has the table."""
