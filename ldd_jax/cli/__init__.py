"""The command line: its flags, its commands, its exit statuses."""
