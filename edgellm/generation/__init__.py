"""One call of `generate` or `stream`: what was asked, its prompts, its search, and what comes back."""
