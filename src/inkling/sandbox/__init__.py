"""Generated code: run where it can do no harm, and tested where it cannot cheat."""

from inkling.sandbox.sandbox import Limits, Ran, Sandbox, Trial, Verdict, protection_here

__all__ = ["Limits", "Ran", "Sandbox", "Trial", "Verdict", "protection_here"]
