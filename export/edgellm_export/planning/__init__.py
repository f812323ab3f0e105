"""What an export will write, take and give, foreseen before any work, and what came of that.

An outline (`exporters/outline.py`) is a package without its weights. The work is what an export computes, a prediction
what it writes and how much memory it takes, a plan that prediction on this machine, an outcome the prediction beside
what happened.
"""
