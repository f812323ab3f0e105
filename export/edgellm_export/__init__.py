"""The exporter: a trained Transformer checkpoint becomes a package directory. Stays on the workstation."""

from edgellm_export.pipeline import Exported, export, plan, verify

__all__ = ["Exported", "export", "plan", "verify"]
