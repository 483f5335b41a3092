"""The operating system and the terminal: files, locks, signals, memory, imports, progress. Uses no other room."""
