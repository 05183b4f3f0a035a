"""The wing that opens, watches and closes resources.

It speaks anyio and resources and knows no ASGI; what it opens is handed to it as
recipes, and what becomes of the values is told through plain callables.
"""
