"""Many lines over one package: a file in, a file out, and whatever stops it, no line is lost or done twice.

    from edgellm.bulk import run_batch
    print(run_batch("smollm2-int8", "questions.jsonl", "answers.jsonl", max_new_tokens=64))

`runner.py` is a batch on one page, `plan.py` what it takes to answer lines. `inputs.py` reads lines, `forms.py` says
what a line asks for and `openai.py` how OpenAI's do, `generating.py` and `encoding.py` have the model answer them,
`journal.py` keeps each answer from the moment it is there, and `outputs.py` makes the output of them.
"""

from edgellm.bulk.pace import Status
from edgellm.bulk.runner import Summary, run_batch

__all__ = ["Status", "Summary", "run_batch"]
