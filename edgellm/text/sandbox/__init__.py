"""Jinja for templates of strangers: what they may call, and how much work they may make.

A template is a program. Jinja's sandbox keeps it from Python's insides; this one also keeps it from running on, and
from filling the memory. Every loop, call, filter and operator of a render draws on one budget, before it is done where
its result may be larger than what went in. So a template ends by itself, in any thread, without a clock.
"""

from edgellm.text.sandbox.environment import Sandbox

__all__ = ["Sandbox"]
