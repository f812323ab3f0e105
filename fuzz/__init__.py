"""Every parser of edgellm, fed with damaged input: see docs/reliability.md. `python -m fuzz` runs it under atheris."""
