"""The cellar: what anyio leaves to be said about tasks; knows no ASGI, no resource.

Both wings may come down here; nothing here goes up.
"""
