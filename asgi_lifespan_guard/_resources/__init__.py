"""Opens, watches and closes resources; speaks anyio, and knows no ASGI.

What it opens is handed to it as recipes, and what becomes of the values is told
through plain callables.
"""
