"""OpenAI's bodies: what requests may have, and what they ask for. The server and batches of lines read them here."""
