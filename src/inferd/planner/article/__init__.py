"""An article on inference economics, recomputed: each claim's verdict comes out of the planner's own arithmetic."""

from inferd.planner.article.findings import Finding, recompute

__all__ = ["Finding", "recompute"]
