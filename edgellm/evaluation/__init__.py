"""Judging packages by data: perplexity, translations, labels, answers.

    from edgellm.evaluation import evaluate
    evaluate("smollm2-int8", "wiki.txt").metrics["perplexity"].value

`procedure.py` is an evaluation on one page; `data.py` reads records; each kind is a module, named in `kinds.py`.
Scores are pure functions, which need no model.
"""

from edgellm.evaluation.procedure import evaluate
from edgellm.evaluation.results import Evaluation, Metric

__all__ = ["Evaluation", "Metric", "evaluate"]
