"""What an export will write, take and give, and what came of that."""
