"""One self-contained HTML page about one or more trained runs."""
