"""State that survives a call, and a process: sessions and their files."""
