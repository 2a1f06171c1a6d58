"""The page at `/`: search from a browser."""

from embedkit.serving.page.page import routes

__all__ = ["routes"]
