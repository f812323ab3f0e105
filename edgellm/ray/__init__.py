"""Beyond one machine: the work of `edgellm.bulk` and `edgellm.server` on a Ray cluster, with the extra `ray`.

    import edgellm.ray
    edgellm.ray.run_batch("smollm2-int8", "questions.jsonl", "answers.jsonl", address="10.0.0.1:6379")
    answered = edgellm.ray.map(dataset, "smollm2-int8", column="question", max_new_tokens=64)
    ray.serve.run(edgellm.ray.serve_app("smollm2-int8"))

`batch.py` is a batch whose lines `fleet.py` gives to actors and takes back from those that die; `worker.py` is such an
actor, with a model and an engine. `parcel.py` brings a package to each node once. `dataset.py` is the same over Ray
Data, `deployment.py` a server in Ray Serve. `library.py` imports Ray, which is the folder of that name elsewhere.
"""

from edgellm.ray.batch import run_batch
from edgellm.ray.dataset import map
from edgellm.ray.deployment import serve_app

__all__ = ["map", "run_batch", "serve_app"]
